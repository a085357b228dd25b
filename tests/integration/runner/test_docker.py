"""The real OpenCode in containers: runs, the warm pool, and what the death of each part leaves."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession

from runner.contract import events
from runner.contract.requests import RunnerHealth
from tests.support.fake_provider import Plan, fake_provider
from tests.support.processes import eventually
from tests.support.runner import read_events, run_runner, text_of
from tests.support.spawner import run_spawner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunningRunner
    from tests.support.spawner import RunningSpawner

pytestmark = pytest.mark.timeout(240)

WITHIN_S = 90


@asynccontextmanager
async def runner_with_spawner(
    directory: Path, provider: FakeProvider, *, runtime: str = "", **settings: str
) -> AsyncIterator[tuple[RunningRunner, RunningSpawner]]:
    with run_spawner(directory / "data" / "sandboxes", runtime=runtime) as spawner:
        usual = {
            "RUNNER_SANDBOX": "docker",
            "RUNNER_SPAWNER_SOCKET": str(spawner.socket),
            "OPENAI_API_KEY": "sk-operator",
            "OPENAI_BASE_URL": provider.base_url,
            "MODELS": "openai/scripted",
        }
        with run_runner(directory, **(usual | settings)) as runner:
            yield runner, spawner
        assert spawner.containers() == []


async def warm(runner: RunningRunner) -> bool:
    async with ClientSession() as http, http.get(f"{runner.url}/health") as response:
        return RunnerHealth.model_validate_json(await response.read()).pool.idle == 1


async def until_warm(runner: RunningRunner) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await warm(runner):
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("runtime", ["", "runsc"], ids=["default", "gvisor"])
async def test_a_warm_container_serves_a_run_and_is_gone(runtime: str, tmp_path: Path) -> None:
    """OpenCode's tools work in it, the user's key pays, and another container takes its place."""
    async with (
        fake_provider() as provider,
        runner_with_spawner(tmp_path, provider, runtime=runtime, RUNNER_WARM_POOL="1") as (
            runner,
            spawner,
        ),
    ):
        await until_warm(runner)
        (before,) = spawner.containers()
        command = "git --version && rg --version && echo made > file && cat file && id -u"
        tool = ("bash", {"command": command, "description": "x"})
        provider.plan = Plan(tools=[tool], pieces=["a", "b", "c"])

        told = await runner.run(key="sk-mine")

        assert isinstance(told[-1], events.RunFinished), told[-1]
        assert text_of(told) == "abc"
        output = str(provider.requests[-1].body["input"])
        assert "git version" in output
        assert "made" in output
        assert {seen.authorization for seen in provider.requests} == {"Bearer sk-mine"}
        await until_warm(runner)
        assert before not in spawner.containers()
        assert len(spawner.containers()) == 1


async def test_nothing_is_left_of_a_killed_runner(tmp_path: Path) -> None:
    """`kill -9` of the runner in a run: the container ends, the next runner goes on."""
    async with fake_provider() as provider:
        provider.plan = Plan(gate=asyncio.Semaphore(1))
        with run_spawner(tmp_path / "data" / "sandboxes") as spawner:
            settings = {
                "RUNNER_SANDBOX": "docker",
                "RUNNER_SPAWNER_SOCKET": str(spawner.socket),
                "OPENAI_API_KEY": "sk-operator",
                "OPENAI_BASE_URL": provider.base_url,
                "MODELS": "openai/scripted",
            }
            with run_runner(tmp_path, **settings) as runner:
                async with runner.client() as client:
                    run_id = await client.start()
                    async with client.events(run_id) as response:
                        async for event in read_events(response):
                            if isinstance(event, events.TextDelta):
                                break
                assert len(spawner.containers()) == 1
                runner.stop(signal.SIGKILL)
            await eventually(lambda: spawner.containers() == [])

            provider.plan = Plan()
            with run_runner(tmp_path, **settings) as runner:
                assert runner.sandboxes == []
                told = await runner.run()
                assert isinstance(told[-1], events.RunFinished), told[-1]


async def test_a_run_outlives_its_spawner(tmp_path: Path) -> None:
    """`kill -9` of the spawner in a run: the run ends well, and leaves nothing to the next one."""
    async with fake_provider() as provider:
        gate = asyncio.Semaphore(1)
        provider.plan = Plan(gate=gate)
        async with runner_with_spawner(tmp_path, provider) as (runner, spawner):
            async with runner.request_run() as response:
                reading = read_events(response)
                assert isinstance(await anext(reading), events.RunStarted)
                assert isinstance(await anext(reading), events.TextDelta)

                spawner.process.kill()
                spawner.process.wait()
                for _ in range(9):
                    gate.release()
                told = [event async for event in reading]
            assert isinstance(told[-1], events.RunFinished), told[-1]

            with run_spawner(spawner.runs, at=spawner.socket):
                await eventually(lambda: spawner.containers() == [])
                told = await runner.run()
                assert isinstance(told[-1], events.RunFinished), told[-1]
