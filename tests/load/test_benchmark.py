"""What the benchmark puts in OpenCode's place, with the real runner; timings are not looked at."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bench.agents import light_agents
from bench.source import MODEL, source
from bench.streams import STAMP
from tests.support.runner import run_runner, text_of

if TYPE_CHECKING:
    from pathlib import Path


async def test_light_agents_serve_runs_like_opencode(tmp_path: Path) -> None:
    """Real ACP, real model calls through each run's door, and an end that leaves nothing."""
    async with source() as provider, light_agents(tmp_path) as agent:
        settings = {
            "RUNNER_SANDBOX": "process",
            "OPENCODE_BIN": str(agent),
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API": "chat",
            "MODELS": MODEL,
        }
        provider.each(pieces=4, interval_s=0.01)
        with run_runner(tmp_path, **settings) as runner:
            users = ("alice", "bob", "eve")
            told = await asyncio.gather(*(runner.run(subject=user) for user in users))
            left = list(runner.sandboxes), runner.sandboxed()

    assert [events[-1].type for events in told] == ["run.finished"] * 3
    assert [len(STAMP.findall(text_of(events).encode())) for events in told] == [4] * 3
    assert left == ([], set())
