"""The warm pool: lent at once, once, and without a trace of what was before."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from aiohttp import ClientSession

from runner.contract import events
from runner.contract.requests import PoolHealth, RunnerHealth
from tests.support import scripted_agent
from tests.support.fake_provider import FakeProvider, Plan, fake_provider
from tests.support.processes import alive
from tests.support.runner import read_events, run_runner, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from runner.contract.events import RunEvent
    from tests.support.runner import RunningRunner

WITHIN_S = 50


@asynccontextmanager
async def warm_runner(
    directory: Path, provider: FakeProvider, **settings: str
) -> AsyncIterator[RunningRunner]:
    """A runner with scripted agents, so that they boot in a moment."""
    light = {
        "RUNNER_SANDBOX": "process",
        "OPENCODE_BIN": str(scripted_agent.install(directory)),
        "RUNNER_WARM_POOL": "1",
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API": "chat",
        "MODELS": "openai/one,openai/two",
    }
    with run_runner(directory, **(light | settings)) as runner:
        yield runner


async def pool_of(runner: RunningRunner) -> PoolHealth:
    async with ClientSession() as http, http.get(f"{runner.url}/health") as response:
        return RunnerHealth.model_validate_json(await response.read()).pool


async def until_pool(runner: RunningRunner, condition: Callable[[PoolHealth], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition(pool := await pool_of(runner)):
        assert time.monotonic() < deadline, f"still {pool}; {runner.log.read_text()}"
        await asyncio.sleep(0.05)


async def until_warm(runner: RunningRunner, count: int = 1) -> None:
    await until_pool(runner, lambda pool: pool.idle == count and not pool.booting)


def logged(runner: RunningRunner, event: str) -> list[dict[str, object]]:
    lines = runner.log.read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in told if line["event"] == event]


def ended_well(told: list[RunEvent]) -> bool:
    return isinstance(told[-1], events.RunFinished)


async def test_a_run_gets_the_warm_opencode_and_its_own_model(tmp_path: Path) -> None:
    """The real one, sandboxed: booted before the run came, with the model and key of the run."""
    async with fake_provider() as provider:
        with run_runner(
            tmp_path,
            RUNNER_WARM_POOL="1",
            OPENAI_API_KEY="sk-operator",
            OPENAI_BASE_URL=provider.base_url,
            MODELS="openai/one,openai/two",
        ) as runner:
            await until_warm(runner)
            assert provider.requests == []
            (sandbox,) = runner.sandboxes
            before = set(runner.sandboxed())

            gate = asyncio.Semaphore(1)
            provider.plan = Plan(gate=gate)
            async with runner.request_run(model="openai/two", key="sk-mine") as response:
                reading = read_events(response)
                told = [await anext(reading), await anext(reading)]
                assert isinstance(told[0], events.RunStarted)
                assert isinstance(told[1], events.TextDelta)
                assert sandbox in runner.sandboxes
                assert before <= set(runner.sandboxed())
                history = sandbox / "home/.local/share/opencode/opencode.db"
                with closing(sqlite3.connect(history)) as database:
                    everything = "\n".join(database.iterdump())
                gate.release()
                told += [event async for event in reading]

            assert ended_well(told), told[-1]
            assert told[-1].usage.output_tokens == 11  # type: ignore[union-attr]
            assert [(r.body["model"], r.authorization) for r in provider.requests] == [
                ("two", "Bearer sk-mine")
            ]
            # Of the throw-away prompt nothing is left: not told, not counted, not in the history.
            assert text_of(told) == "Hello world"
            assert set(re.findall(r"\bses_\w+", everything)) == {told[0].session_id}
            assert '"."' not in everything
            assert not sandbox.exists()
            assert alive(before) == []


async def test_each_warm_agent_serves_one_run(tmp_path: Path) -> None:
    """More runs at once than there are warm ones: each has a sandbox of its own, all end well."""
    async with fake_provider() as provider:
        gate = asyncio.Semaphore(0)
        provider.plan = Plan(pieces=["a"], gate=gate)
        settings = {"RUNNER_WARM_POOL": "2", "GATEWAY_RUNS_PER_USER": "9"}
        async with warm_runner(tmp_path, provider, **settings) as runner:
            await until_warm(runner, 2)
            running = [asyncio.create_task(runner.run()) for _ in range(6)]
            while provider.open_streams < 6:
                await asyncio.sleep(0.01)
            for _ in running:
                gate.release()

            told = await asyncio.gather(*running)
            assert all(ended_well(one) for one in told)
            started = [next(e for e in one if isinstance(e, events.RunStarted)) for one in told]
            assert len({event.session_id for event in started}) == 6
            assert len(logged(runner, "warm_agent_lent")) >= 2
            await until_warm(runner, 2)
            assert len(runner.sandboxes) == 2


async def test_a_run_that_finds_one_booting_takes_that_one(tmp_path: Path) -> None:
    """It has a head start; booting another beside it would slow both."""
    async with fake_provider() as provider, warm_runner(tmp_path, provider) as runner:
        await until_pool(runner, lambda pool: pool.idle + pool.booting > 0)

        assert text_of(await runner.run()) == "Hello world"
        assert len(logged(runner, "warm_agent_lent")) == 1


async def test_one_that_dies_is_replaced(tmp_path: Path) -> None:
    """A run that comes in between boots its own; nobody gets the dead one."""
    async with fake_provider() as provider, warm_runner(tmp_path, provider) as runner:
        await until_warm(runner)
        (dead,) = runner.sandboxes
        for pid in runner.sandboxed():
            os.kill(pid, signal.SIGKILL)

        assert ended_well(await runner.run())
        await until_warm(runner)
        assert dead not in runner.sandboxes


async def test_one_that_hangs_is_passed_over(tmp_path: Path) -> None:
    """The run notices, ends it, and goes on with another."""
    async with fake_provider() as provider, warm_runner(tmp_path, provider) as runner:
        await until_warm(runner)
        (hanging,) = runner.sandboxes
        for pid in runner.sandboxed():
            os.kill(pid, signal.SIGSTOP)

        assert ended_well(await runner.run())
        assert logged(runner, "agent_did_not_begin")
        assert not hanging.exists()


async def test_an_aged_one_is_replaced(tmp_path: Path) -> None:
    """RUNNER_WARM_MAX_AGE_S bounds how long one may wait."""
    async with (
        fake_provider() as provider,
        warm_runner(tmp_path, provider, RUNNER_WARM_MAX_AGE_S="0.5") as runner,
    ):
        await until_warm(runner)
        (first,) = runner.sandboxes
        await until_pool(runner, lambda _: first not in runner.sandboxes)
        await until_warm(runner)
        assert {line["reason"] for line in logged(runner, "warm_agent_closed")} == {"aged"}


async def test_ones_of_a_replaced_opencode_are_replaced(tmp_path: Path) -> None:
    """An upgrade under a running runner reaches the next run."""
    async with fake_provider() as provider, warm_runner(tmp_path, provider) as runner:
        await until_warm(runner)
        (old,) = runner.sandboxes
        program = tmp_path / "scripted-agent"
        shutil.copy(program, tmp_path / "new")
        (tmp_path / "new").replace(program)

        assert ended_well(await runner.run())
        assert not old.exists()
        assert logged(runner, "warm_agent_closed")[0]["reason"] == "replaced"


async def test_without_memory_there_is_no_pool_but_runs_go_on(tmp_path: Path) -> None:
    """RUNNER_WARM_MIN_FREE_MB: nothing is kept ready when less is left."""
    async with (
        fake_provider() as provider,
        warm_runner(tmp_path, provider, RUNNER_WARM_MIN_FREE_MB=str(1 << 30)) as runner,
    ):
        assert ended_well(await runner.run())
        assert logged(runner, "warm_agent_ready") == []
        pool = await pool_of(runner)
        assert (pool.size, pool.idle, pool.booting) == (1, 0, 0)


async def test_a_pool_that_cannot_boot_does_not_try_all_the_time(tmp_path: Path) -> None:
    """Each failure makes it wait longer; runs say what is wrong."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    async with (
        fake_provider() as provider,
        warm_runner(tmp_path, provider, OPENCODE_BIN=str(broken)) as runner,
    ):
        told = await runner.run()
        assert isinstance(told[-1], events.RunFailed)
        assert told[-1].code == "agent-crashed"
        while len(logged(runner, "warm_boot_failed")) < 3:
            await asyncio.sleep(0.05)
        rests = [line["retry_s"] for line in logged(runner, "warm_boot_failed")]
        assert rests[:3] == [1.0, 2.0, 4.0]


async def test_an_ended_runner_leaves_no_warm_one(tmp_path: Path) -> None:
    """SIGTERM, with some ready and some booting: no process, no directory."""
    async with (
        fake_provider() as provider,
        warm_runner(tmp_path, provider, RUNNER_WARM_POOL="4") as runner,
    ):
        await until_pool(runner, lambda pool: pool.idle >= 2)
        seen = set(runner.sandboxed())

        assert await asyncio.to_thread(runner.stop) == 0
        assert runner.sandboxes == []
        assert alive(seen) == []


async def test_the_next_start_sweeps_the_warm_ones_of_a_killed_runner(tmp_path: Path) -> None:
    """After kill -9 too."""
    async with fake_provider() as provider:
        async with warm_runner(tmp_path, provider) as runner:
            await until_warm(runner)
            (left,) = runner.sandboxes
            await asyncio.to_thread(runner.stop, signal.SIGKILL)
        async with warm_runner(tmp_path, provider, RUNNER_WARM_POOL="0") as runner:
            assert not left.exists()
            assert runner.sandboxes == []
