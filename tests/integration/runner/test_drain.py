"""SIGTERM: runs that are on end in peace, new ones come later."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from runner.contract import events
from tests.support import scripted_agent
from tests.support.fake_provider import Plan, fake_provider
from tests.support.runner import read_events, run_runner, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.runner import RunnerClient, RunningRunner

PATIENCE_S = 50


class Scene(NamedTuple):
    """A runner that got SIGTERM in a run.

    Attributes:
        rest: What follows in the run, for who has read its first text.
        go_on: Lets the run go on.
    """

    runner: RunningRunner
    client: RunnerClient
    run_id: str
    rest: AsyncIterator[events.RunEvent]
    go_on: Callable[[], None]


@asynccontextmanager
async def draining(directory: Path, drain_s: str) -> AsyncIterator[Scene]:
    """Yield a runner that has just got SIGTERM."""
    async with fake_provider() as provider, asyncio.timeout(PATIENCE_S):
        gate = asyncio.Semaphore(1)
        provider.plan = Plan(pieces=["a", "b"], gate=gate)

        def go_on() -> None:
            provider.plan = Plan()  # for those that were accepted before the signal arrived
            gate.release()

        with run_runner(
            directory,
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=provider.base_url,
            OPENCODE_BIN=str(scripted_agent.install(directory)),
            RUNNER_SANDBOX="process",
            RUNNER_DRAIN_S=drain_s,
        ) as runner:
            async with runner.client() as client:
                run_id = await client.start(idempotency_key="one")
                async with client.events(run_id) as response:
                    told = read_events(response)
                    while not isinstance(await anext(told), events.TextDelta):
                        pass
                    runner.process.send_signal(signal.SIGTERM)
                    yield Scene(runner, client, run_id, told, go_on)


async def refusal(client: RunnerClient) -> tuple[dict[str, Any], str]:
    """Ask for runs until one is refused; return the problem, and when to come again."""
    while True:
        async with client.post("another") as response:
            if response.status != 202:
                return await response.json(content_type=None), response.headers["Retry-After"]


async def test_runs_end_in_peace_and_new_ones_come_later(tmp_path: Path) -> None:
    """New prompts get 503 and when to come again; readers read on; the health page tells."""
    async with draining(tmp_path, "600") as (runner, client, run_id, rest, go_on):
        problem, retry_after = await refusal(client)
        assert (problem["status"], problem["code"]) == (503, "runner-restarting")
        assert int(retry_after) > 0
        health = json.load(await asyncio.to_thread(urllib.request.urlopen, f"{runner.url}/health"))
        assert (health["status"], health["draining"]) == ("degraded", True)
        async with client.post(idempotency_key="one") as response:
            assert (await response.json())["run_id"] == run_id  # known already

        go_on()
        told = [event async for event in rest]
        assert text_of(told) == "b"
        assert isinstance(told[-1], events.RunFinished)
        assert await asyncio.to_thread(runner.process.wait, PATIENCE_S) == 0


@pytest.mark.parametrize(("drain_s", "signals"), [("0", 0), ("0.2", 0), ("600", 1)])
async def test_after_their_time_or_a_second_signal_runs_are_ended(
    tmp_path: Path, drain_s: str, signals: int
) -> None:
    """Each is told, nothing is left."""
    async with draining(tmp_path, drain_s) as (runner, client, _, rest, _):
        for _ in range(signals):
            await refusal(client)  # so that the first signal has arrived
            runner.process.send_signal(signal.SIGTERM)
        *_, last = [event async for event in rest]

        assert last == events.RunCancelled(seq=last.seq, by="shutdown")
        assert await asyncio.to_thread(runner.process.wait, PATIENCE_S) == 0
        assert runner.sandboxes == []
