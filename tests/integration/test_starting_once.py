"""What is started twice is started once; what ends twice has one end: through two gateways."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from tests.support.fake_provider import Plan, fake_provider
from tests.support.gateway import gateway_settings, run_gateway
from tests.support.runner import TOKEN, run_runner
from tests.support.scripted_agent import install

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

RUNS = "/opencode/runs"
AT_ONCE = 20
TERMINAL = {"run.finished": "finished", "run.cancelled": "cancelled"}


async def started(gateway: RunningGateway, user: User, prompt: str, key: str | None = None) -> str:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with gateway.request(
        "POST", RUNS, user=user, json={"prompt": prompt}, headers=headers
    ) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


async def look(gateway: RunningGateway, user: User, run_id: str) -> dict[str, Any]:
    async with gateway.request("GET", f"{RUNS}/{run_id}", user=user) as response:
        found: dict[str, Any] = await response.json()
        return found


async def cancelled_in_time(gateway: RunningGateway, user: User, number: int) -> str:
    """Start a run and cancel it at about the moment when it ends by itself."""
    run_id = await started(gateway, user, f"run {number}")
    async with gateway.request("GET", f"{RUNS}/{run_id}/events", user=user) as response:
        await response.content.readany()
        await asyncio.sleep(random.Random(number).uniform(0, 0.06))
        async with gateway.request("DELETE", f"{RUNS}/{run_id}", user=user) as answer:
            assert answer.status in {200, 202}
        await response.read()
    return run_id


def record_of(pocketbase: RunningPocketBase, user: User, run_id: str) -> dict[str, Any]:
    path = f"/api/collections/runs/records/{run_id}"
    record: dict[str, Any] = pocketbase.must("GET", path, token=user.token)
    return record


async def test_one_start_and_one_end(
    pocketbase: RunningPocketBase, alice: User, tmp_path: Path
) -> None:
    """The same key, or the same prompt, twenty times at once; DELETE racing with the end."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(fake_provider())
        runner = stack.enter_context(
            run_runner(
                tmp_path,
                RUNNER_SANDBOX="process",
                OPENAI_API_KEY="sk-x",
                OPENAI_BASE_URL=provider.base_url,
                MODELS="openai/scripted",
                OPENCODE_BIN=str(install(tmp_path)),
                GATEWAY_RUNS_PER_USER="4",
            )
        )
        settings = [
            gateway_settings(
                pocketbase,
                runner_url=runner.url,
                runner_token=SecretStr(TOKEN),
                gateway_debounce_s=30.0,
            )
            for _ in range(2)
        ]
        gateways = [await stack.enter_async_context(run_gateway(each)) for each in settings]
        gate = asyncio.Semaphore(0)
        provider.plan = Plan(pieces=["a"], gate=gate)

        by_key = await asyncio.gather(
            *(started(gateways[n % 2], alice, "keyed", "k") for n in range(AT_ONCE))
        )
        by_prompt = await asyncio.gather(
            *(started(gateways[n % 2], alice, "clicked") for n in range(AT_ONCE))
        )
        for _ in range(2):
            gate.release()
        provider.plan = Plan(pieces=["a", "b", "c"], interval_s=0.01)
        raced = await asyncio.gather(
            *(cancelled_in_time(gateways[n % 2], alice, n) for n in range(AT_ONCE))
        )
        async with asyncio.timeout(40):
            while not all(record_of(pocketbase, alice, run_id)["ended"] for run_id in raced):
                await asyncio.sleep(0.1)
        states = {run_id: await look(gateways[0], alice, run_id) for run_id in raced}
        logs = {
            run_id: (runner.data_dir / "runs" / run_id / "events.ndjson").read_bytes()
            for run_id in raced
        }

    assert len(set(by_key)) == len(set(by_prompt)) == 1
    assert set(by_key) != set(by_prompt)
    for run_id, log in logs.items():
        kinds = [json.loads(line)["type"] for line in log.splitlines()]
        assert [kind in TERMINAL for kind in kinds].count(True) == 1
        status = TERMINAL[kinds[-1]]
        assert states[run_id]["status"] == status
        assert record_of(pocketbase, alice, run_id)["status"] == status
