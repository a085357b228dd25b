"""The same request twice is one run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from runner.contract import events
from tests.support.fake_provider import Plan, fake_provider
from tests.support.runner import new_run_id, read_events, run_runner
from tests.support.scripted_agent import install

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunnerClient, RunningRunner

PATIENCE_S = 150
pytestmark = pytest.mark.timeout(PATIENCE_S + 30)


async def started(client: RunnerClient, prompt: str, **fields: Any) -> tuple[int, Any]:
    async with client.post(prompt, **fields) as response:
        body = await response.json(content_type=None)
        if response.status == 202:
            return response.status, (body["run_id"], body["joined"])
        return response.status, body["code"]


async def test_a_key_names_one_run(runner: RunningRunner, provider: FakeProvider) -> None:
    """Again: the same run, also after its end. With another body: a conflict. Per subject."""
    key = new_run_id()
    async with runner.client() as client, runner.client("bob") as bob, asyncio.timeout(PATIENCE_S):
        run_id = await client.start("Hi", idempotency_key=key)
        assert await started(client, "Hi", idempotency_key=key) == (202, (run_id, True))
        for other in ({"prompt": "Ho"}, {"model": "openai/other"}, {"permission": "ask"}):
            body = {"prompt": "Hi", "idempotency_key": key} | other
            assert await started(client, **body) == (409, "idempotency-conflict")
        other_run = await bob.start("Ho", idempotency_key=key)
        assert other_run != run_id
        await client.log(run_id)
        await bob.log(other_run)
        assert await started(client, "Hi", idempotency_key=key) == (202, (run_id, True))
        for model in (None, "openai/other"):
            again = await started(client, "Hi", model=model, come_back=True)
            assert again == ((404, "not-found") if model else (202, (run_id, True)))
    assert len(provider.requests) == 2


async def test_a_run_id_names_one_run(runner: RunningRunner, provider: FakeProvider) -> None:
    """A gateway whose answer got lost may ask again; nobody else gets at it."""
    async with runner.client() as client, runner.client("bob") as bob, asyncio.timeout(PATIENCE_S):
        run_id = await client.start("Hi")
        assert await started(client, "Hi", run_id=run_id) == (202, (run_id, True))
        assert (await started(client, "Ho", run_id=run_id))[0] == 409
        assert (await started(bob, "Hi", run_id=run_id))[0] == 409
        await client.log(run_id)


async def test_a_double_click_is_one_run(runner: RunningRunner, provider: FakeProvider) -> None:
    """The same prompt, model and subject, shortly after; not once the run has ended."""
    provider.plan = Plan(pieces=["x"], gate=(gate := asyncio.Semaphore(0)))
    async with runner.client() as client, runner.client("bob") as bob, asyncio.timeout(PATIENCE_S):
        run_id = await client.start("Hi", attached=True)
        joined = await started(client, "Hi", join_within_s=30)  # detached: keeps it alive
        assert joined == (202, (run_id, True))
        fresh = [
            await client.start("Hi", join_within_s=0.000001),
            await client.start("Ho", join_within_s=30),
            await client.start("Hi", model="openai/other", join_within_s=30),
            await bob.start("Hi", join_within_s=30),
        ]
        assert len({run_id, *fresh}) == 5
        await asyncio.sleep(2.5)  # longer than RUNNER_ATTACH_GRACE_S
        for _ in range(8):
            gate.release()
        assert isinstance((await client.log(run_id))[-1], events.RunFinished)
        for other, owner in zip(fresh, [client, client, client, bob], strict=True):
            await owner.log(other)
        again = await client.start("Hi", join_within_s=30)
        assert again not in {run_id, *fresh}
        gate.release()
        await client.log(again)


async def test_one_comes_back_to_the_run_that_lost_its_reader(tmp_path: Path) -> None:
    """Two tabs made the same request: the one that was cut off gets its own run again."""
    async with fake_provider() as provider, asyncio.timeout(PATIENCE_S):
        provider.plan = Plan(hang=True)
        with run_runner(
            tmp_path,
            RUNNER_SANDBOX="process",
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=provider.base_url,
            OPENCODE_BIN=str(install(tmp_path)),
            RUNNER_ATTACH_GRACE_S=str(PATIENCE_S),
        ) as runner:
            async with runner.client() as client:
                cut_off = await client.start("Hi", attached=True)
                latest = await client.start("Hi", attached=True)
                async with client.events(latest) as response:
                    await anext(read_events(response))
                    assert await started(client, "Hi", come_back=True) == (202, (cut_off, True))
                    await client.cancel(cut_off)
                    await client.log(cut_off)
                    assert await started(client, "Hi", come_back=True) == (202, (latest, True))
