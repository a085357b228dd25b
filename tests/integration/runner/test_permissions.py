"""What OpenCode asks before it does it: answered yes, no, late and never."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.support.fake_provider import Plan, fake_provider
from tests.support.runner import read_events, run_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from runner.contract.events import RunEvent
    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunnerClient, RunningRunner

TOUCH = ("bash", {"command": "echo was-done", "description": "x"})

PATIENCE_S = 150
pytestmark = pytest.mark.timeout(PATIENCE_S + 30)


async def up_to_the_request(
    reading: AsyncIterator[RunEvent],
) -> tuple[list[RunEvent], events.PermissionRequested]:
    told = []
    async for event in reading:
        told.append(event)
        if isinstance(event, events.PermissionRequested):
            return told, event
    raise AssertionError(told)


async def answered(client: RunnerClient, run_id: str, kind: str) -> list[RunEvent]:
    """Answer a run's first request with its option of that *kind*; return all events."""
    async with client.events(run_id) as response:
        reading = read_events(response)
        told, request = await up_to_the_request(reading)
        assert (await client.state(run_id)).phase == "person"
        option = next(option.id for option in request.options if option.kind == kind)
        assert await client.answer(run_id, "p99", option) == 404
        assert await client.answer(run_id, request.id, "surprise") == 422
        assert await client.answer(run_id, request.id, option) == 204
        assert await client.answer(run_id, request.id, option) == 409
        told += [event async for event in reading]
    assert await client.answer(run_id, request.id, option) == 409  # after the end, too
    assert events.PermissionResolved(id=request.id, option=option, by="user") in [
        event.model_copy(update={"seq": 0}) for event in told
    ]
    return told


def was_done(told: list[RunEvent]) -> bool:
    return any(
        isinstance(event, events.ToolUpdated) and "was-done" in (event.output or "")
        for event in told
    )


def resolved(told: list[RunEvent]) -> events.PermissionResolved:
    (event,) = [event for event in told if isinstance(event, events.PermissionResolved)]
    return event


async def test_yes_lets_it_go_on(runner: RunningRunner, provider: FakeProvider) -> None:
    """The command runs, the answer follows."""
    provider.plan = Plan(tools=[TOUCH], pieces=["done"])
    async with runner.client() as client, asyncio.timeout(PATIENCE_S):
        told = await answered(client, await client.start(permission="ask"), "allow_once")

    assert was_done(told)
    assert isinstance(told[-1], events.RunFinished), told[-1]


async def test_no_keeps_it_from_happening(runner: RunningRunner, provider: FakeProvider) -> None:
    """The command does not run; the run ends by itself."""
    provider.plan = Plan(tools=[TOUCH], pieces=["done"])
    async with runner.client() as client, asyncio.timeout(PATIENCE_S):
        told = await answered(client, await client.start(permission="ask"), "reject_once")

    assert not was_done(told)
    assert isinstance(told[-1], events.RunFinished), told[-1]


@pytest.fixture
def asking(tmp_path: Path, provider_port: int) -> Iterator[RunningRunner]:
    """A runner whose operator wants to be asked, and gives three seconds; silence may take two."""
    with run_runner(
        tmp_path,
        OPENAI_API_KEY="k",
        OPENAI_BASE_URL=f"http://127.0.0.1:{provider_port}/v1",
        RUNNER_PERMISSION="ask",
        RUNNER_PERMISSION_TIMEOUT_S="3",
        RUNNER_IDLE_TIMEOUT_S="2",
    ) as running:
        yield running


async def test_never_is_no_and_waiting_for_a_person_is_not_silence(
    asking: RunningRunner, provider: FakeProvider
) -> None:
    """The deadline denies; the idle watchdog, shorter than it, leaves the run alone."""
    provider.plan = Plan(tools=[TOUCH], pieces=["done"])
    async with asking.client() as client, asyncio.timeout(PATIENCE_S):
        run_id = await client.start()
        told = await client.log(run_id)
        assert await client.answer(run_id, resolved(told).id, "once") == 409  # late

        assert resolved(told).by == "deadline"
        assert not was_done(told)
        assert isinstance(told[-1], events.RunFinished), told[-1]

        denied = await client.log(await client.start(permission="deny"))
        assert resolved(denied).by == "policy"
        assert not was_done(denied)

        async with client.post(permission="allow") as response:
            assert response.status == 422


async def test_without_being_told_to_ask_nothing_is_asked(tmp_path: Path) -> None:
    """The default: commands in the sandbox are allowed, the rest is denied."""
    async with fake_provider() as provider:
        provider.plan = Plan(tools=[TOUCH], pieces=["done"])
        with run_runner(tmp_path, OPENAI_API_KEY="k", OPENAI_BASE_URL=provider.base_url) as runner:
            told = await runner.run()

    assert was_done(told)
    assert not [event for event in told if isinstance(event, events.PermissionRequested)]


async def test_a_silent_tool_is_told_apart(asking: RunningRunner, provider: FakeProvider) -> None:
    """A tool that says nothing for too long ends the run, and the message says whom it was."""
    sleep = ("bash", {"command": "sleep 60", "description": "x"})
    provider.plan = Plan(tools=[sleep])
    async with asking.client() as client, asyncio.timeout(PATIENCE_S):
        run_id = await client.start()
        async with client.events(run_id) as response:
            reading = read_events(response)
            _, request = await up_to_the_request(reading)
            option = next(o.id for o in request.options if o.kind == "allow_once")
            assert await client.answer(run_id, request.id, option) == 204
            *_, last = [event async for event in reading]
    assert isinstance(last, events.RunFailed)
    assert last.code == "idle-timeout"
    assert "tool" in last.message
