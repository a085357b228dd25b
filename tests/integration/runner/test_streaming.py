"""Pieces reach the reader as the provider sends them, through the real OpenCode."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.integration.runner.conftest import OPERATOR_KEY
from tests.support.fake_provider import Plan
from tests.support.processes import eventually, files_with, mentioning
from tests.support.runner import read_events, text_of

if TYPE_CHECKING:
    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunningRunner

PIECES = ["Grüße, ", "Welt ", "🌍", "👩‍💻", "日本", " – ", "ß", "!", "\n", "Ende"]


@pytest.mark.parametrize("runner", ["responses", "chat"], indirect=True)
async def test_a_piece_arrives_before_the_next_one_is_sent(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """Nothing on the way waits for more: one piece sent is one event, byte for byte."""
    gate = asyncio.Semaphore(0)
    provider.plan = Plan(pieces=PIECES, gate=gate)
    got: list[str] = []
    async with runner.request_run() as response, asyncio.timeout(60):
        seen = read_events(response)
        started = await anext(seen)
        assert isinstance(started, events.RunStarted)
        assert started.model == "openai/scripted"
        for piece in PIECES:
            gate.release()
            delta = await anext(seen)
            if isinstance(delta, events.UsageUpdated):  # the door hears the end before OpenCode
                delta = await anext(seen)
            assert isinstance(delta, events.TextDelta)
            got.append(delta.text)
            assert got[-1] == piece
        *_, last = [event async for event in seen]

    assert isinstance(last, events.RunFinished)
    assert last.stop_reason == "end_turn"
    assert (last.usage.input_tokens, last.usage.output_tokens) == (7, 11)


async def test_events_are_numbered_without_gaps(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """0, 1, 2, … and exactly one terminal event, the last."""
    told = await runner.run()

    assert [event.seq for event in told] == list(range(len(told)))
    assert [isinstance(event, events.Terminal) for event in told].count(True) == 1
    assert isinstance(told[-1], events.RunFinished)
    assert text_of(told) == "Hello world"


async def test_one_prompt_is_one_request_to_the_provider(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """No title request, no throw-away prompt, no other call costs the user's money."""
    await runner.run("What is up?")

    assert len(provider.requests) == 1
    assert "What is up?" in str(provider.requests[0].body)


async def test_the_users_key_goes_before_the_operators(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """The provider sees the user's key for a user who has one, else the operator's."""
    await runner.run(key="sk-user-91c7")
    await runner.run()

    assert [seen.authorization for seen in provider.requests] == [
        "Bearer sk-user-91c7",
        f"Bearer {OPERATOR_KEY}",
    ]


async def test_a_key_is_found_nowhere_while_a_run_uses_it(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """Not in an environment, a command line, a file below DATA_DIR, or a log."""
    canary = "sk-canary-5d2e7f90"
    gate = asyncio.Semaphore(0)
    show_environment = ("bash", {"command": "env", "description": "x"})
    provider.plan = Plan(pieces=["a", "b"], gate=gate, tools=[show_environment])
    async with runner.request_run(key=canary) as response, asyncio.timeout(60):
        told = []
        async for event in read_events(response):
            told.append(event)
            if len(provider.requests) == 2:
                break
        assert provider.requests[-1].authorization == f"Bearer {canary}"

        assert mentioning(canary) == []
        assert files_with(canary, runner.data_dir.parent) == []
        tool_output = str([event for event in told if isinstance(event, events.ToolUpdated)])
        assert "RUN_TOKEN" in tool_output  # the tool did print its environment
        assert "service-token" not in tool_output
        assert OPERATOR_KEY not in tool_output
        assert canary not in tool_output + str(provider.requests[1].body)
    await eventually(lambda: not runner.sandboxes)


async def test_tools_work_and_are_told(runner: RunningRunner, provider: FakeProvider) -> None:
    """A shell command and a file: started with their input, completed with their output."""
    provider.plan = Plan(
        pieces=["done"],
        tools=[
            ("bash", {"command": "echo from-bash > made.txt; cat made.txt", "description": "x"}),
            ("grep", {"pattern": "from-.*"}),
        ],
    )

    told = await runner.run()

    started = [event for event in told if isinstance(event, events.ToolStarted)]
    assert [event.name for event in started] == ["execute", "search"]
    assert started[0].input["command"].startswith("echo from-bash")
    completed = [e for e in told if isinstance(e, events.ToolUpdated) and e.status == "completed"]
    assert "from-bash" in (completed[0].output or "")
    assert "made.txt" in (completed[1].output or "")
    assert text_of(told) == "done"
