"""Reads many streams at once, cheaply: what they carry, when it came, what broke.

What is read for is a number in the text: the time a piece was sent, so that its delay is known.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.wire import Answer, AnswerBroken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

STAMP = re.compile(rb"@(\d+);")
"""How a piece says when it was sent: in nanoseconds of this machine's monotonic clock."""
POSITION = re.compile(rb'"position":(\d+)')
"""How a run that waits learns its place."""
FINISHED = b'"run.finished"'
"""How a run ends well, as NDJSON and as server-sent events."""

_OPENED_AT_ONCE = 50
_KEPT_BYTES = 256  # more than any mark is long


def stamp() -> str:
    """Return the mark of a piece that is sent now."""
    return f"@{time.monotonic_ns()};"


@dataclass(eq=False)
class Stream(asyncio.Protocol):
    """One request and its answer, as it is read.

    Attributes:
        found: When each number was read (ns), and the number.
        broken: What went wrong, if something did.
        asked_ns: When the request was sent.
        ended_ns: When the answer was over.
    """

    request: bytes
    end: bytes
    pattern: re.Pattern[bytes] = STAMP
    found: list[tuple[int, int]] = field(default_factory=list)
    broken: str = ""
    asked_ns: int = 0
    ended_ns: int = 0
    speaks: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _answer: Answer = field(default_factory=Answer)
    _text: bytes = b""
    _ended_well: bool = False
    _transport: asyncio.Transport | None = None

    @property
    def delays_s(self) -> list[float]:
        """How long after its sending each stamped piece was read."""
        return [(read - sent) / 1e9 for read, sent in self.found]

    @property
    def first_s(self) -> float:
        """How long after the request the first number was read."""
        return (self.found[0][0] - self.asked_ns) / 1e9

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`: ask."""
        self._transport = transport  # type: ignore[assignment]
        self.asked_ns = time.monotonic_ns()
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`: look for numbers, and for the end."""
        now = time.monotonic_ns()
        try:
            text = self._text + self._answer.feed(data)
        except (AnswerBroken, ValueError) as exc:
            self._close(str(exc))
            return
        last = 0
        for match in self.pattern.finditer(text):
            self.found.append((now, int(match[1])))
            last = match.end()
        self._ended_well |= self.end in text
        self._text = text[last:][-_KEPT_BYTES:]
        if self.found:
            self.speaks.set()
        if self._answer.ended:
            self._close("" if self._ended_well else f"ended with {self._text.decode()!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._close(f"the connection was lost ({exc})")

    def _close(self, broken: str) -> None:
        """Be over, for the first reason there is."""
        if not self.over.is_set():
            self.broken = broken
            self.ended_ns = time.monotonic_ns()
            self.speaks.set()
            self.over.set()
            self.leave()

    def leave(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


@dataclass(kw_only=True)
class Streams:
    """Streams that are being read together."""

    streams: list[Stream]

    async def until_all_speak(self) -> None:
        """Wait until each has found a number, or is over."""
        for stream in self.streams:
            await stream.speaks.wait()

    async def until_over(self) -> None:
        """Wait until each is over."""
        for stream in self.streams:
            await stream.over.wait()

    async def until(self, happening: Awaitable[None]) -> None:
        """Wait for *happening*, which needs all of them; raise as soon as one is over."""
        wanted = asyncio.ensure_future(happening)
        ends = [asyncio.create_task(stream.over.wait()) for stream in self.streams]
        try:
            await asyncio.wait({wanted, *ends}, return_when=asyncio.FIRST_COMPLETED)
            self.check()
            if not wanted.done():
                raise RuntimeError("a stream ended too soon")
        finally:
            for task in (wanted, *ends):
                task.cancel()

    @property
    def broken(self) -> list[str]:
        """What went wrong, for each that broke."""
        return [stream.broken for stream in self.streams if stream.broken]

    @property
    def pieces(self) -> int:
        """How many were read in all."""
        return sum(len(stream.found) for stream in self.streams)

    @property
    def delays_s(self) -> list[float]:
        """The delays of all pieces but each stream's first, which has its own measurement."""
        return [delay for stream in self.streams for delay in stream.delays_s[1:]]

    def check(self) -> None:
        """Raise if one broke."""
        if self.broken:
            raise RuntimeError(
                f"{len(self.broken)} of {len(self.streams)} streams broke: {self.broken[0]}"
            )


@asynccontextmanager
async def reading(
    host: str,
    port: int,
    requests: Sequence[bytes],
    *,
    end: bytes = FINISHED,
    pattern: re.Pattern[bytes] = STAMP,
) -> AsyncIterator[Streams]:
    """Send *requests*, each over a connection of its own, and read while the block runs.

    An answer that does not say *end* is a broken one.
    """
    loop = asyncio.get_running_loop()
    streams = [Stream(request, end, pattern) for request in requests]
    try:
        for first in range(0, len(streams), _OPENED_AT_ONCE):
            batch = streams[first : first + _OPENED_AT_ONCE]
            await asyncio.gather(
                *(loop.create_connection(lambda s=stream: s, host, port) for stream in batch)  # type: ignore[misc]
            )
        yield Streams(streams=streams)
    finally:
        for stream in streams:
            stream.leave()
