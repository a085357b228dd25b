"""Whatever the provider or OpenCode does wrong: a clear end within seconds, and no leftover."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.support.fake_provider import Plan
from tests.support.processes import alive, eventually
from tests.support.runner import read_events, run_runner, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunningRunner

pytestmark = pytest.mark.timeout(150)
WITHIN_S = 60
"""OpenCode alone would retry in silence for over a minute."""


def failure(told: list[events.RunEvent]) -> events.RunFailed:
    assert isinstance(told[-1], events.RunFailed), told[-1]
    return told[-1]


@pytest.mark.parametrize(
    ("plan", "code", "words"),
    [
        (Plan(status=401, message="Incorrect API key sk-secret"), "key-refused", "401"),
        (Plan(status=403), "key-refused", "403"),
        (
            Plan(status=400, message="max_tokens 429 too\nlarge"),
            "provider-refused",
            "429 too large",
        ),
        (Plan(status=404, message="no such model"), "provider-refused", "no such model"),
        (Plan(status=429), "provider-busy", "429"),
        (Plan(status=429, retry_after="3600"), "provider-busy", "429"),
        (Plan(status=500), "provider-error", "500"),
        (Plan(status=503), "provider-busy", "503"),
        (Plan(status=302), "provider-refused", "302"),
        (Plan(hang=True), "provider-timeout", "in time"),
        (Plan(stall_after=1), "provider-timeout", "in time"),
        (Plan(drop_after=1), "provider-dropped", "dropped"),
        (Plan(in_stream_error="server error, try again later"), "provider-refused", "try again"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_failing_provider_is_told_clearly_and_soon(
    runner: RunningRunner, provider: FakeProvider, plan: Plan, code: str, words: str
) -> None:
    """The stream ends in run.failed with a stable code, in seconds, and nothing is left."""
    provider.plan = plan
    began = time.monotonic()

    told = await runner.run(key="sk-secret")

    assert failure(told).code == code
    assert words in failure(told).message
    assert "sk-secret" not in str(told)
    assert time.monotonic() - began < WITHIN_S
    assert runner.sandboxes == []


@pytest.mark.parametrize("runner", ["responses", "chat"], indirect=True)
async def test_text_before_the_drop_is_kept_and_told_once(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """OpenCode would send the partial text again on each of its retries."""
    provider.plan = Plan(pieces=["once ", "only ", "never"], drop_after=2)

    told = await runner.run()

    assert text_of(told) == "once only "
    assert failure(told).code == "provider-dropped"


async def test_a_busy_provider_is_asked_again_and_the_wait_is_told(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """One 503 costs a moment and an event, not the run."""
    plans = iter([Plan(status=503)])
    provider.plan = lambda _seen: next(plans, Plan(pieces=["fine"]))

    told = await runner.run()

    waiting = [event for event in told if isinstance(event, events.ProviderWaiting)]
    assert [(event.attempt, event.reason) for event in waiting] == [(1, "provider-busy")]
    assert text_of(told) == "fine"
    assert isinstance(told[-1], events.RunFinished)


async def test_nobody_listening_is_provider_unreachable(runner: RunningRunner) -> None:
    """The provider's port is closed: no `provider` fixture here."""
    told = await runner.run()

    assert failure(told).code == "provider-unreachable"


async def test_a_reader_that_leaves_ends_its_run(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """OpenCode, its tools, the upstream request and the directory go with the reader."""
    provider.plan = Plan(pieces=["a"] * 50, interval_s=0.2)
    async with runner.request_run() as response, asyncio.timeout(WITHIN_S):
        async for event in read_events(response):
            if isinstance(event, events.TextDelta):
                break
        started = runner.sandboxed()
        assert started
        assert len(runner.sandboxes) == 1

    await eventually(lambda: not runner.sandboxes)
    await eventually(lambda: provider.open_streams == 0)
    assert alive(started) == []


async def test_a_daemon_of_a_tool_does_not_outlive_its_run(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """Not even one that left its session and process group."""
    daemon = "(setsid sleep 300 & setsid sleep 301 &) >/dev/null 2>&1; echo started"
    provider.plan = Plan(tools=[("bash", {"command": daemon, "description": "x"})])
    seen: set[int] = set()
    told: list[events.RunEvent] = []
    async with runner.request_run() as response:
        async for event in read_events(response):
            seen |= runner.sandboxed()
            told.append(event)

    assert isinstance(told[-1], events.RunFinished), told[-1]
    assert seen
    assert alive(seen) == []
    assert runner.sandboxes == []


async def test_a_killed_opencode_is_agent_crashed(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """The agent's death is noticed at once and leaves nothing."""
    provider.plan = Plan(pieces=["a", "b"], gate=asyncio.Semaphore(1))
    told = []
    async with runner.request_run() as response, asyncio.timeout(WITHIN_S):
        async for event in read_events(response):
            told.append(event)
            if isinstance(event, events.TextDelta):
                for pid in runner.sandboxed():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    assert failure(told).code == "agent-crashed"
    assert runner.sandboxes == []


async def test_an_unusable_opencode_is_told(tmp_path: Path) -> None:
    """One that ends at once is agent-crashed; one that is not there is refused with 503."""
    binary = tmp_path / "opencode"
    binary.write_text("#!/bin/sh\nexit 3\n")
    binary.chmod(0o755)
    with run_runner(tmp_path, OPENAI_API_KEY="k", OPENCODE_BIN=str(binary)) as runner:
        assert failure(await runner.run()).code == "agent-crashed"

        binary.unlink()
        async with runner.request_run() as response:
            assert response.status == 503
            assert (await response.json(content_type=None))["code"] == "opencode-unavailable"
        assert runner.sandboxes == []
