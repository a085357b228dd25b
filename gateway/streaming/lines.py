"""One event on its way through: the runner's bytes, and the little that has to be known of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from runner.contract.events import RunFailed

TERMINAL = frozenset({"run.finished", "run.failed", "run.cancelled"})


class NoEvent(ValueError):
    """A line that is no event."""


# As the runner writes an event; what is written otherwise is read in full.
_USUAL = re.compile(rb'\{"seq":(\d{1,15}),"type":"([a-z]+\.[a-z]+)"[,}]')


class EventLine(NamedTuple):
    """An event as it came, unchanged.

    Attributes:
        raw: One line of JSON, without its newline.
        seq: Number of the event in its run.
        type: Kind of event; a newer runner may send kinds that are not known here.
        is_logged: Whether it stands in the run's log; else it is the gateway's own word, and a
            reader that comes back must not count it as read.
    """

    raw: bytes
    seq: int
    type: str
    is_logged: bool = True

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self.type in TERMINAL

    def fields(self) -> dict[str, Any]:
        """Read all of it: most events pass without.

        Raises:
            NoEvent: It only began like an event.
        """
        return _fields_of(self.raw)


def read_line(raw: bytes) -> EventLine:
    """Return the event of one line.

    Raises:
        NoEvent: The line is none.
    """
    if (found := _USUAL.match(raw)) and raw.endswith(b"}"):
        return EventLine(raw, int(found[1]), found[2].decode())
    fields = _fields_of(raw)
    seq, kind = fields.get("seq"), fields.get("type")
    if not isinstance(seq, int) or not isinstance(kind, str) or not kind.isprintable():
        raise NoEvent
    return EventLine(raw.strip(), seq, kind)


def _fields_of(raw: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise NoEvent from exc
    if not isinstance(fields, dict):
        raise NoEvent
    return fields


def own_word(event: RunFailed) -> EventLine:
    """Return an event that stands in no log: without a number, so that no reader counts it."""
    raw = event.model_dump_json(by_alias=True, exclude={"seq"}).encode()
    return EventLine(raw, event.seq, event.type, is_logged=False)
