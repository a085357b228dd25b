"""One user sends a hundred prompts, another one sends one; ten users send ten each."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.provider import MODEL
from runner.contract import events
from tests.support import scripted_agent
from tests.support.runner import read_events, run_runner

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.provider import StampingProvider
    from tests.support.runner import RunningRunner

GROUP = "fairness"
_SLOTS = 2
_MANY = 100


async def measure(report: Report, provider: StampingProvider) -> None:
    """Measure at the runner, which knows users as subjects."""
    provider.pieces, provider.interval_s = 2, 0.2
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "RUNNER_SANDBOX": "process",
            "OPENCODE_BIN": str(scripted_agent.install(Path(directory))),
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API": "chat",
            "MODELS": MODEL,
            "MAX_CONCURRENT_PROCESSES": str(_SLOTS),
            "GATEWAY_RUNS_PER_USER": str(_SLOTS),
            "RUNNER_QUEUE_SIZE": "1000",
            "LOG_LEVEL": "warning",
        }
        with run_runner(Path(directory), **settings) as runner:
            await _lone_prompt(report, runner)
            await _ten_users(report, runner)


async def _lone_prompt(report: Report, runner: RunningRunner) -> None:
    ended: list[float] = []
    many = [asyncio.create_task(_run(runner, "many", ended)) for _ in range(_MANY)]
    while len(ended) < 5 * _SLOTS:
        await asyncio.sleep(0.01)
    turn_s = (ended[-1] - ended[0]) / (len(ended) - 1) * _SLOTS
    waited_s = await _run(runner, "one", [])
    fifo = sum(not task.done() for task in many) / _SLOTS
    baseline = "first come first served would let it wait"
    report.add(GROUP, baseline, fifo, "turns")
    report.add(
        GROUP, "the lone prompt behind 100 waited", waited_s / turn_s, "turns", baseline=baseline
    )
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)


async def _run(runner: RunningRunner, subject: str, ended: list[float]) -> float:
    """Carry a run out; return how long it had to wait for a slot."""
    waited_s = 0.0
    async with runner.request_run(subject=subject) as response:
        async for event in read_events(response):
            if isinstance(event, events.RunStarted):
                waited_s = event.queued_s
    ended.append(time.monotonic())
    return waited_s


async def _ten_users(report: Report, runner: RunningRunner) -> None:
    done: Counter[str] = Counter()

    async def one(subject: str) -> None:
        await _run(runner, subject, [])
        done[subject] += 1

    users = [f"user{number}" for number in range(10)]
    # The first user's ten come first, and so on: only the queue can make it fair.
    running = [asyncio.create_task(one(user)) for user in users for _ in range(10)]
    while done.total() < 5 * len(users):
        await asyncio.sleep(0.01)
    shares = [done[user] for user in users]
    jain = sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
    report.add(GROUP, "Jain's index over ten users, half-way", jain, "", samples=sum(shares))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
