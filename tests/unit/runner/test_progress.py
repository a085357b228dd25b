"""Whom a run waits for, read off its events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from runner.contract import events
from runner.contract.requests import RunState
from runner.run_log.progress import Progress

if TYPE_CHECKING:
    from runner.contract.events import RunEvent

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
STARTED = events.RunStarted(model="m/x", session_id="s", queued_s=1)


def new_progress() -> Progress:
    return Progress(
        RunState(
            run_id="a" * 15,
            subject="alice",
            status="queued",
            phase="queued",
            model="m/x",
            created_at="2026-01-02T12:00:00.000Z",
        )
    )


def after(*told: RunEvent) -> RunState:
    progress = new_progress()
    for seq, event in enumerate(told):
        if isinstance(event, events.RunStarted):
            progress.got_slot(NOON + timedelta(seconds=2))
        numbered = event.model_copy(update={"seq": seq})
        progress.take(numbered, NOON + timedelta(seconds=5))
    return progress.state


def tool(number: str, status: str) -> events.ToolUpdated:
    return events.ToolUpdated(id=number, status=status)


def test_a_queued_run_knows_its_position() -> None:
    state = after(events.RunQueued(position=3))
    assert (state.status, state.phase, state.position) == ("queued", "queued", 3)


def test_between_its_slot_and_its_prompt_a_run_boots() -> None:
    progress = new_progress()
    progress.got_slot(NOON + timedelta(seconds=2))
    state = progress.state
    assert (state.status, state.phase, state.position) == ("running", "booting", None)
    assert (state.queued_s, state.started_at) == (2.0, "2026-01-02T12:00:02.000Z")


def test_the_model_is_waited_for_unless_a_tool_runs_or_a_person_is_asked() -> None:
    """A person goes before a tool, as the tool waits for the person."""
    begun = events.ToolStarted(id="t", name="execute", title="ls")
    asked = events.PermissionRequested(id="p1", title="ls", options=[], deadline="")
    answered = events.PermissionResolved(id="p1")

    assert after(STARTED).phase == "model"
    assert after(STARTED, begun).phase == "tool"
    assert after(STARTED, begun, tool("t", "in_progress")).phase == "tool"
    assert after(STARTED, begun, asked).phase == "person"
    assert after(STARTED, begun, asked, answered).phase == "tool"
    assert after(STARTED, begun, tool("t", "completed")).phase == "model"
    assert after(STARTED, begun, tool("t", "failed")).phase == "model"


def test_the_end_is_told_with_its_reason() -> None:
    usage = events.Usage(input_tokens=3)
    finished = after(
        STARTED, events.RunFinished(stop_reason="end_turn", usage=usage, duration_s=4.5)
    )
    failed = after(STARTED, events.RunFailed(code="timeout", message="…"))
    cancelled = after(events.RunQueued(position=1), events.RunCancelled(by="user"))

    assert (finished.status, finished.phase, finished.usage) == ("finished", "ended", usage)
    assert (finished.duration_s, finished.last_seq) == (4.5, 1)
    assert (failed.status, failed.error_code, failed.duration_s) == ("failed", "timeout", 5.0)
    assert (cancelled.status, cancelled.cancelled_by) == ("cancelled", "user")
    assert (cancelled.position, cancelled.ended_at) == (None, "2026-01-02T12:00:05.000Z")
