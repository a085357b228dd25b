"""A cancelled run is gone within two seconds, whatever it was doing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.support.fake_provider import Plan
from tests.support.processes import alive, eventually
from tests.support.runner import read_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.contract.requests import Phase
    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunnerClient, RunningRunner

pytestmark = pytest.mark.timeout(180)

WITHIN_S = 2.0
SLEEPER = "setsid sleep 300 & sleep 301 & trap '' TERM; sleep 302"


async def reached(
    client: RunnerClient, run_id: str, phase: Phase, also: Callable[[], object] = lambda: True
) -> None:
    async with asyncio.timeout(100):
        while (await client.state(run_id)).phase != phase or not also():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("phase", "plan"),
    [
        ("booting", Plan()),
        ("model", Plan(hang=True)),
        ("model", Plan(status=503, retry_after="5")),
        ("model", Plan(pieces=["a"] * 500, interval_s=0.1)),
        ("tool", Plan(tools=[("bash", {"command": SLEEPER, "description": "x"})])),
        ("person", Plan(tools=[("bash", {"command": "ls", "description": "x"})])),
    ],
    ids=["booting", "provider-silent", "provider-retry", "provider-streaming", "tool", "person"],
)
async def test_a_cancelled_run_is_gone_soon(
    runner: RunningRunner, provider: FakeProvider, phase: Phase, plan: Plan
) -> None:
    """OpenCode, its tools, their children and the provider's request; the log tells by whom."""
    provider.plan = plan
    async with runner.client() as client:
        run_id = await client.start(permission="ask" if phase == "person" else None)
        begun = runner.sandboxed if phase == "booting" else provider.arrived.is_set
        await reached(client, run_id, phase, begun)
        if phase == "tool":
            await eventually(lambda: len(runner.sandboxed()) >= 5)
        started = runner.sandboxed()
        assert started
        began = time.monotonic()

        await client.cancel(run_id)

        await eventually(lambda: alive(started) == [], within_s=WITHIN_S)
        assert time.monotonic() - began < WITHIN_S
        async with asyncio.timeout(10):
            last = (await client.log(run_id))[-1]
        assert last == events.RunCancelled(seq=last.seq, by="user")
        await eventually(lambda: not runner.sandboxed() and provider.open_streams == 0)
        assert runner.sandboxes == []
        state = await client.cancel(run_id)  # again: no harm
        assert (state.status, state.phase, state.cancelled_by) == ("cancelled", "ended", "user")


async def test_a_queued_run_is_cancelled_without_having_begun(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """It gives up its place; those before it go on."""
    provider.plan = Plan(pieces=["x"], gate=asyncio.Semaphore(0))
    async with runner.client() as client:
        before = [await client.start(f"{number}") for number in range(2)]
        queued, behind = await client.start("2"), await client.start("3")
        async with client.events(queued) as response, asyncio.timeout(100):
            reading = read_events(response)
            assert await anext(reading) == events.RunQueued(position=1)
            assert (await client.state(queued)).position == 1
            assert (await client.state(behind)).position == 2
            await client.cancel(queued)
            *_, last = [event async for event in reading]
        assert last == events.RunCancelled(seq=1, by="user")
        assert (await client.state(behind)).position == 1
        for run_id in [*before, behind]:
            assert (await client.state(run_id)).status != "cancelled"
            await client.cancel(run_id)
        async with asyncio.timeout(20):
            for run_id in [*before, behind]:
                assert isinstance((await client.log(run_id))[-1], events.RunCancelled)


async def test_a_strangers_run_is_not_there(runner: RunningRunner, provider: FakeProvider) -> None:
    """404 everywhere, as for a run that never was."""
    provider.plan = Plan(pieces=["x"], gate=asyncio.Semaphore(0))
    async with runner.client() as client, runner.client("mallory") as stranger:
        run_id = await client.start()
        for path in (f"/runs/{run_id}", "/runs/aaaaaaaaaaaaaaa"):
            assert await stranger.status_of("GET", path) == 404
            assert await stranger.status_of("GET", f"{path}/events") == 404
            assert await stranger.status_of("DELETE", path) == 404
        assert await stranger.answer(run_id, "p1", "once") == 404
        assert (await client.state(run_id)).status in {"queued", "running"}
        assert [s.run_id for s in await client.states(ids=f"{run_id},aaaaaaaaaaaaaaa")] == [run_id]
        assert run_id in [s.run_id for s in await client.states(subject="alice")]
        assert await client.states(subject="mallory") == []
        await client.cancel(run_id)
        await client.log(run_id)


async def test_an_attached_run_survives_a_short_absence_and_no_longer_one(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """RUNNER_ATTACH_GRACE_S is 2 here; counted from the start if nobody ever came."""
    gate = asyncio.Semaphore(0)
    provider.plan = Plan(pieces=["a", "b", "c"], gate=gate)
    async with runner.client() as client:
        never_read = await client.start("never read", attached=True)
        run_id = await client.start("read", attached=True)
        async with client.events(run_id) as response, asyncio.timeout(100):
            assert isinstance(await anext(read_events(response)), events.RunStarted)
            await provider.arrived.wait()
        async with client.events(run_id, after=0) as response, asyncio.timeout(100):
            for _ in range(6):
                gate.release()
            told = [event async for event in read_events(response)]
            assert isinstance(told[-1], events.RunFinished), told[-1]

        async with asyncio.timeout(100):
            last = None
            while last is None:
                state = await client.state(never_read)
                last = state.cancelled_by
                await asyncio.sleep(0.05)
        assert last == "disconnect"
