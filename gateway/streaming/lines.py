"""One event on its way through: the runner's bytes, and the little that has to be known of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.contract.wire import encode_event

if TYPE_CHECKING:
    from runner.contract.events import RunEvent

TERMINAL = frozenset({"run.finished", "run.failed", "run.cancelled"})


class NoEvent(ValueError):
    """A line that is no event."""


@dataclass(frozen=True, slots=True)
class EventLine:
    """An event as it came, unchanged.

    Attributes:
        raw: One line of JSON, without its newline.
        seq: Number of the event in its run.
        type: Kind of event; a newer runner may send kinds that are not known here.
        fields: All of it, read.
        is_logged: Whether it stands in the run's log; else it is the gateway's own word, and a
            reader that comes back must not count it as read.
    """

    raw: bytes
    seq: int
    type: str
    fields: dict[str, Any]
    is_logged: bool = True

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self.type in TERMINAL


def read_line(raw: bytes) -> EventLine:
    """Return the event of one line.

    Raises:
        NoEvent: The line is none.
    """
    try:
        fields = json.loads(raw)
        seq, kind = fields["seq"], fields["type"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise NoEvent from exc
    if not isinstance(seq, int) or not isinstance(kind, str) or not kind.isprintable():
        raise NoEvent
    return EventLine(raw.strip(), seq, kind, fields)


def line_of(event: RunEvent) -> EventLine:
    """Return an event as a line."""
    return read_line(encode_event(event))
