"""Readers of a run's events that come back where they left off, one for each format."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Protocol

from aiohttp import ClientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientSession

TERMINAL = frozenset({"run.finished", "run.failed", "run.cancelled"})
_LAST_LINE = re.compile(r"\n\[(✔ User .* - Fertig!\]|ERROR\] .*)\n$".encode())
_PASSING = frozenset({502, 503})


class EventReader(Protocol):
    """Reads one run, over as many connections as it takes.

    Attributes:
        connections: How many it took.
    """

    connections: int

    @property
    def log(self) -> bytes:
        """All that was read, as it stands in the run's log; of text, the text."""

    def headers(self) -> Mapping[str, str]:
        """Return what to ask for."""

    def feed(self, data: bytes) -> bool:
        """Take the next bytes of a connection; return whether nothing follows."""

    def cut(self) -> None:
        """Note that the connection is gone, with what it had not told whole."""


class SseReader:
    """Reads server-sent events, as a browser's EventSource does."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bytes]] = []
        self.connections = 0
        self._buffer = b""

    @property
    def log(self) -> bytes:
        """See `EventReader.log`."""
        return b"".join(data + b"\n" for _, data in self.events)

    def headers(self) -> Mapping[str, str]:
        """See `EventReader.headers`."""
        last = {"Last-Event-ID": str(self.events[-1][0])} if self.events else {}
        return {"Accept": "text/event-stream", **last}

    def feed(self, data: bytes) -> bool:
        """See `EventReader.feed`."""
        *blocks, self._buffer = (self._buffer + data).split(b"\n\n")
        ends = [self._take(block) for block in blocks]
        return any(ends)

    def cut(self) -> None:
        """See `EventReader.cut`."""
        self._buffer = b""

    def _take(self, block: bytes) -> bool:
        fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
        if b"id" not in fields:  # a comment, `retry`, or the gateway's own word
            return False
        self.events.append((int(fields[b"id"]), fields[b"data"]))
        return fields[b"event"].decode() in TERMINAL


class NdjsonReader:
    """Reads lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.connections = 0
        self._buffer = b""

    @property
    def log(self) -> bytes:
        """See `EventReader.log`."""
        return b"".join(line + b"\n" for line in self.lines)

    def headers(self) -> Mapping[str, str]:
        """See `EventReader.headers`."""
        last = {"Last-Event-ID": str(json.loads(self.lines[-1])["seq"])} if self.lines else {}
        return {"Accept": "application/x-ndjson", **last}

    def feed(self, data: bytes) -> bool:
        """See `EventReader.feed`."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        # No heartbeat, and not the gateway's own word.
        self.lines += [line for line in lines if line.startswith(b'{"seq":')]
        return bool(self.lines) and json.loads(self.lines[-1])["type"] in TERMINAL

    def cut(self) -> None:
        """See `EventReader.cut`."""
        self._buffer = b""


class TextReader:
    """Reads text, which has no numbers: a reader begins anew each time."""

    def __init__(self) -> None:
        self.log = b""
        self.connections = 0

    def headers(self) -> Mapping[str, str]:
        """See `EventReader.headers`."""
        return {"Accept": "text/plain"}

    def feed(self, data: bytes) -> bool:
        """See `EventReader.feed`."""
        self.log += data
        return _LAST_LINE.search(self.log) is not None

    def cut(self) -> None:
        """See `EventReader.cut`."""
        self.log = b""


async def read_once(
    reader: EventReader, http: ClientSession, url: str, *, hang_up_after: int | None = None
) -> bool:
    """Let *reader* read on one connection; return whether it has read to the end.

    It may hang up after so many bytes by itself. A connection that is refused or breaks is no
    error: that is what coming back is for.
    """
    reader.connections += 1
    size = 0
    try:
        async with http.get(url, headers=reader.headers()) as response:
            if response.status in _PASSING:
                return False
            assert response.status == 200, (response.status, await response.text())
            async for data in response.content.iter_any():
                size += len(data)
                if reader.feed(data):
                    return True
                if hang_up_after is not None and size > hang_up_after:
                    response.close()
                    break
    except (ClientError, OSError):
        pass
    reader.cut()
    return False
