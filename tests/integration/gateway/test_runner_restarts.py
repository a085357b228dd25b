"""The runner is restarted: new prompts wait for it, for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp.test_utils import unused_port

from runner.contract.problems import QueueFull, RunnerRestarting
from tests.support.fake_runner import run_fake_runner
from tests.support.gateway import gateway_settings, problem_of, run_gateway

if TYPE_CHECKING:
    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

PATIENCE_S = 20.0


async def until_asked(runner: FakeRunner) -> None:
    """Wait until the runner was asked for a run."""
    async with asyncio.timeout(PATIENCE_S):
        while not runner.started:
            await asyncio.sleep(0.01)


async def test_a_prompt_waits_while_the_runner_drains_and_restarts(
    pocketbase: RunningPocketBase, alice: User
) -> None:
    """First it is told to come again, then nobody is there, then it gets its answer: one run."""
    port = unused_port()
    settings = gateway_settings(
        pocketbase, runner_url=f"http://127.0.0.1:{port}", gateway_runner_patience_s=PATIENCE_S
    )
    async with run_gateway(settings) as gateway:
        async with run_fake_runner(port=port) as old:
            old.refusal = RunnerRestarting(retry_after_s=5)
            asked = asyncio.create_task(answer(gateway, alice))
            await until_asked(old)
        async with run_fake_runner(port=port) as new:
            assert await asked == "Hallo\n[✔ User Älice Ünger - Fertig!]\n"
            assert len(new.runs) == 1
            assert old.started[0]["run_id"] in new.runs


async def answer(gateway: RunningGateway, user: User) -> str:
    async with gateway.stream(user) as response:
        return await response.text()


async def test_after_its_patience_the_caller_is_told_when_to_come_again(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """The gateway's fixture has half a second of patience."""
    runner.refusal = RunnerRestarting(retry_after_s=5)

    async with gateway.stream(alice) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (503, "runner-restarting")
    assert response.headers["Retry-After"] == "5"
    assert len(runner.started) > 1


async def test_other_refusals_are_final(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Whoever finds the queue full decides alone whether to wait."""
    runner.refusal = QueueFull(retry_after_s=5)

    async with gateway.stream(alice) as response:
        await problem_of(response)

    assert (response.status, len(runner.started)) == (503, 1)
