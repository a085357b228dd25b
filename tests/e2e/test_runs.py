"""Runs through the real gateway, the real runner, the real OpenCode and the real PocketBase."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import unused_port
from pydantic import SecretStr

from tests.support.fake_provider import Plan, fake_provider
from tests.support.gateway import gateway_settings, run_gateway
from tests.support.processes import eventually, mentioning
from tests.support.runner import TOKEN, run_runner

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import ClientResponse

    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

RUNS = "/opencode/runs"
NDJSON = "application/x-ndjson"


def runner_settings(runner_port: int, provider_port: int) -> dict[str, str]:
    return {
        "PORT": str(runner_port),
        "OPENAI_API_KEY": "sk-operator",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{provider_port}/v1",
        "MODELS": "openai/scripted",
    }


def record_of(pocketbase: RunningPocketBase, user: User, run_id: str) -> dict[str, Any]:
    path = f"/api/collections/runs/records/{run_id}"
    status, record = pocketbase.call("GET", path, token=user.token)
    return record if status == 200 else {}


async def look(gateway: RunningGateway, user: User, run_id: str) -> dict[str, Any]:
    async with gateway.request("GET", f"{RUNS}/{run_id}", user=user) as response:
        found: dict[str, Any] = await response.json()
    return found


@pytest.mark.timeout(180)
async def test_a_killed_runner_is_told_to_readers_and_records_alike(
    pocketbase: RunningPocketBase, alice: User, tmp_path: Path
) -> None:
    """`kill -9` of the runner mid-run: one connection reads up to `runner-restarted`."""
    runner_port, provider_port = unused_port(), unused_port()
    wanted = runner_settings(runner_port, provider_port)
    settings = gateway_settings(
        pocketbase,
        runner_url=f"http://127.0.0.1:{runner_port}",
        runner_token=SecretStr(TOKEN),
        gateway_runner_patience_s=60.0,
    )
    gate = asyncio.Semaphore(2)
    async with fake_provider(provider_port) as provider, run_gateway(settings) as gateway:
        provider.plan = Plan(pieces=["eins", "zwei", "drei"], gate=gate)
        with run_runner(tmp_path, **wanted) as runner:
            async with gateway.stream(alice, accept=NDJSON) as response:
                run_id, told = response.headers["X-Run-ID"], b""
                async with asyncio.timeout(60):
                    while b"zwei" not in told:
                        told += await response.content.readany()
                waiting = await look(gateway, alice, run_id)
                runner.stop(signal.SIGKILL)
                with run_runner(tmp_path, **wanted):
                    async with asyncio.timeout(60):
                        told += await response.content.read()
                    ended = await look(gateway, alice, run_id)
                    async with gateway.request(
                        "GET", f"{RUNS}/{run_id}/events", user=alice, headers={"Accept": NDJSON}
                    ) as again:
                        log = await again.read()
                    await eventually(lambda: record_of(pocketbase, alice, run_id)["ended"])

    lines = b"".join(line + b"\n" for line in told.split(b"\n") if line)
    last = json.loads(lines.splitlines()[-1])
    record = record_of(pocketbase, alice, run_id)
    assert (waiting["status"], waiting["phase"]) == ("running", "model")
    assert lines == log
    assert (last["type"], last["code"]) == ("run.failed", "runner-restarted")
    assert ended["error_code"] == record["error_code"] == "runner-restarted"
    assert ended["status"] == record["status"] == "failed"


@pytest.mark.timeout(180)
async def test_a_person_says_yes_then_stop(
    pocketbase: RunningPocketBase, alice: User, tmp_path: Path
) -> None:
    """A question of the real OpenCode is answered through the gateway; DELETE ends its command."""
    runner_port, provider_port = unused_port(), unused_port()
    settings = gateway_settings(
        pocketbase,
        runner_url=f"http://127.0.0.1:{runner_port}",
        runner_token=SecretStr(TOKEN),
    )
    wanted = {**runner_settings(runner_port, provider_port), "RUNNER_PERMISSION": "ask"}
    command = {"command": "echo begun; sleep 6123", "description": "Wait"}
    async with fake_provider(provider_port) as provider, run_gateway(settings) as gateway:
        provider.plan = Plan(tools=[("bash", command)])
        with run_runner(tmp_path, **wanted) as runner:
            async with gateway.stream(alice, accept=NDJSON) as response:
                run_id = response.headers["X-Run-ID"]
                asked = await until(response, "permission.requested")
                phase = (await look(gateway, alice, run_id))["phase"]
                [option] = [o for o in asked["options"] if o["kind"] == "allow_once"]
                async with gateway.request(
                    "POST",
                    f"{RUNS}/{run_id}/permissions/{asked['id']}",
                    user=alice,
                    json={"option": option["id"]},
                ) as answer:
                    assert answer.status == 204
                resolved = await until(response, "permission.resolved")
                await eventually(lambda: mentioning("6123"), within_s=30)
                async with gateway.request("DELETE", f"{RUNS}/{run_id}", user=alice) as stop:
                    assert stop.status in {200, 202}
                await eventually(lambda: not runner.sandboxed(), within_s=2)
                cancelled = await until(response, "run.cancelled")
            await eventually(lambda: record_of(pocketbase, alice, run_id)["ended"])

    assert phase == "person"
    assert (resolved["option"], resolved["by"]) == (option["id"], "user")
    assert cancelled["by"] == "user"
    assert record_of(pocketbase, alice, run_id)["status"] == "cancelled"


async def until(response: ClientResponse, kind: str) -> dict[str, Any]:
    """Read on to the next event of a kind; return it."""
    async with asyncio.timeout(60):
        async for line in response.content:
            event: dict[str, Any] = json.loads(line) if line.strip() else {}
            if event.get("type") == kind:
                return event
    raise AssertionError(f"the stream ended without {kind}")
