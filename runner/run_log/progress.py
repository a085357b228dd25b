"""How far a run has come, derived from its events. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runner.contract import events

if TYPE_CHECKING:
    from runner.contract.events import RunEvent
    from runner.contract.requests import Phase, RunState, Status

_TOOL_ENDED = frozenset({"completed", "failed"})


class Progress:
    """Takes a run's events in order and says what state it is in."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._last_seq = state.last_seq
        self._tools: set[str] = set()
        self._asked: set[str] = set()

    @property
    def state(self) -> RunState:
        """The state after the latest event."""
        return self._state.model_copy(update={"last_seq": self._last_seq, "phase": self._phase()})

    def got_slot(self, now: datetime) -> None:
        """Note that the run need not wait any more."""
        self._update(
            status="running",
            phase="booting",
            position=None,
            started_at=timestamp(now),
            queued_s=self._seconds_until(now),
        )

    def take(self, event: RunEvent, now: datetime) -> None:
        """Note one event."""
        self._last_seq = event.seq
        match event:
            case events.RunQueued():
                self._update(position=event.position)
            case events.RunStarted():
                self._update(phase="model", position=None)
            case events.ToolStarted():
                self._tools.add(event.id)
            case events.ToolUpdated() if event.status in _TOOL_ENDED:
                self._tools.discard(event.id)
            case events.PermissionRequested():
                self._asked.add(event.id)
            case events.PermissionResolved():
                self._asked.discard(event.id)
            case events.UsageUpdated():
                self._update(usage=events.Usage.model_validate(event.model_dump()))
            case _:
                self._take_end(event, now)

    def _take_end(self, event: RunEvent, now: datetime) -> None:
        match event:
            case events.RunFinished():
                self._end("finished", now, usage=event.usage, duration_s=event.duration_s)
            case events.RunFailed():
                self._end("failed", now, error_code=event.code)
            case events.RunCancelled():
                self._end("cancelled", now, cancelled_by=event.by)
            case _:
                pass

    def _end(self, status: Status, now: datetime, **fields: Any) -> None:
        ended = {
            "phase": "ended",
            "position": None,
            "ended_at": timestamp(now),
            "duration_s": self._seconds_until(now),
            "error_code": None,
            "cancelled_by": None,
        }
        self._update(status=status, **(ended | fields))

    def _update(self, **fields: Any) -> None:
        self._state = self._state.model_copy(update=fields)

    def _seconds_until(self, now: datetime) -> float:
        created = datetime.fromisoformat(self._state.created_at)
        return round(max(0.0, (now - created).total_seconds()), 3)

    def _phase(self) -> Phase:
        if self._state.phase != "model":
            return self._state.phase
        if self._asked:
            return "person"
        return "tool" if self._tools else "model"


def timestamp(moment: datetime) -> str:
    """Return *moment* as ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
