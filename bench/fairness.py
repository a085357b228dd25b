"""One user sends a hundred prompts, another one sends one; ten users send ten each."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.agents import light_agents
from bench.figures import jain
from bench.service import LIGHT
from bench.source import MODEL
from tests.support.runner import read_events, run_runner

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.source import Source
    from runner.contract.requests import RunState
    from tests.support.runner import RunningRunner

GROUP = "fairness"
_SLOTS = 2
_MANY = 100
_LONE = 8
_USERS = 10
_EACH = 10
_ENOUGH_TO_KNOW = 5 * _SLOTS


async def measure(report: Report, provider: Source) -> None:
    """Measure at the runner, which knows users as subjects."""
    provider.each(pieces=2, interval_s=0.3)
    with tempfile.TemporaryDirectory() as directory:
        async with light_agents(Path(directory)) as agent:
            settings = LIGHT | {
                "OPENCODE_BIN": str(agent),
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
                await _lone_prompts(report, runner)
                await _ten_users(report, runner)


async def _lone_prompts(report: Report, runner: RunningRunner) -> None:
    tasks = [asyncio.create_task(_run(runner, "many")) for _ in range(_MANY)]
    while sum(task.done() for task in tasks) < _ENOUGH_TO_KNOW:
        await asyncio.sleep(0.01)
    fifo: list[float] = []
    for _ in range(_LONE):
        fifo.append(sum(not task.done() for task in tasks) / _SLOTS)
        await _run(runner, "one")
    await _cancelled(tasks)
    async with runner.client() as client:
        many = await client.states(subject="many")
        lone = await client.states(subject="one")
    turns = [
        (run.duration_s or 0.0) - (run.queued_s or 0.0) for run in many if run.status == "finished"
    ]
    turn_s = sum(turns) / len(turns)
    baseline = "first come, first served would let the lone prompt wait"
    report.spread(GROUP, baseline, fifo, "turns")
    report.spread(
        GROUP,
        f"the lone prompt beside {_MANY} waited",
        [(run.queued_s or 0.0) / turn_s for run in lone],
        "turns",
        baseline=baseline,
    )
    before = [_began_between(many, run.created_at, run.started_at) for run in lone]
    report.spread(GROUP, "turns of the other user that came first", before, "", baseline=baseline)
    report.at_most("turns of the other user before the lone prompt's, every time", 1.0, max(before))


def _began_between(runs: list[RunState], created: str, started: str | None) -> int:
    """Return how many of *runs* got their slot after *created* and before *started*."""
    return sum(created < run.started_at < (started or "") for run in runs if run.started_at)


async def _run(runner: RunningRunner, subject: str) -> None:
    """Carry a run out."""
    async with runner.request_run(subject=subject) as response:
        async for _ in read_events(response):
            pass


async def _ten_users(report: Report, runner: RunningRunner) -> None:
    done: Counter[str] = Counter()

    async def one(subject: str) -> None:
        await _run(runner, subject)
        done[subject] += 1

    users = [f"user{number}" for number in range(_USERS)]
    # The first user's ten come first, and so on: only the queue can make it fair.
    tasks = [asyncio.create_task(one(user)) for user in users for _ in range(_EACH)]
    half = _USERS * _EACH // 2
    while done.total() < half:
        await asyncio.sleep(0.01)
    shares = [done[user] for user in users]
    baseline = "Jain's index, had first come been first served"
    report.add(GROUP, baseline, jain([_EACH] * (half // _EACH) + [0] * (_USERS - half // _EACH)))
    words = f"Jain's index over {_USERS} users, half-way"
    report.add(GROUP, words, jain(shares), baseline=baseline, samples=sum(shares))
    report.at_least(words, 0.95, jain(shares))
    await _cancelled(tasks)


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
