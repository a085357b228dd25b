"""NDJSON between runner and gateway: one event a line, no I/O in here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.contract.events import EVENTS

if TYPE_CHECKING:
    from runner.contract.events import RunEvent

DEFAULT_MAX_LINE_BYTES = 64 << 20


class LineTooLong(ValueError):
    """A line exceeds what its reader is willing to hold in memory."""


def encode_event(event: RunEvent) -> bytes:
    """Return *event* as one line of NDJSON, with its newline."""
    return event.model_dump_json(by_alias=True).encode() + b"\n"


def decode_event(line: bytes) -> RunEvent:
    """Return the event of one line.

    Raises:
        pydantic.ValidationError: The line is no event.
    """
    return EVENTS.validate_json(line)


class LineDecoder:
    """Splits a byte stream into lines, wherever its chunks happen to break.

    Bytes without a newline are searched once, so a long line costs linear time.
    """

    def __init__(self, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the lines they complete, without newlines.

        Raises:
            LineTooLong: A line is longer than *max_line_bytes*.
        """
        first, *more = data.split(b"\n")
        self._hold(first)
        lines: list[bytes] = []
        for part in more:
            lines.append(b"".join(self._parts))
            self._parts, self._held = [], 0
            self._hold(part)
        return [line for line in lines if line]

    def _hold(self, part: bytes) -> None:
        self._held += len(part)
        if self._held > self._max:
            raise LineTooLong(f"a line is longer than {self._max} bytes")
        if part:
            self._parts.append(part)

    @property
    def has_partial_line(self) -> bool:
        """Whether the stream would end in the middle of a line now."""
        return bool(self._parts)
