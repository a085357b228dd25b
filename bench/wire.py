"""HTTP with as little as will do: what loads the machine must cost it less than what is measured.

No I/O but asyncio's protocols; requests and answers are those of the benchmark's own parts and of
what it measures, not of strangers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HEAD_END = b"\r\n\r\n"


def request(
    method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """Return a request's bytes."""
    fields = {"Host": "bench", **(headers or {}), "Content-Length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join(lines).encode() + _HEAD_END + body


class AnswerBroken(Exception):
    """An answer is a refusal, or not what HTTP knows; says what came instead."""


class Answer:
    """Decodes one chunked answer, wherever its pieces happen to break.

    Attributes:
        ended: Whether its last chunk is there.
    """

    def __init__(self) -> None:
        self.ended = False
        self._held = b""
        self._in_body = False
        self._left = 0  # of the chunk that is being read, with the line end behind it

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return what they add to the body.

        Raises:
            AnswerBroken: It is no chunked answer with a status of 200.
        """
        data = self._held + data
        self._held = b""
        if not self._in_body:
            head, found, rest = data.partition(_HEAD_END)
            if not found:
                self._held = data
                return b""
            self._check(head, rest)
            data, self._in_body = rest, True
        parts: list[bytes] = []
        while data and not self.ended:
            if self._left:
                parts.append(data[: max(0, self._left - 2)])
                taken = min(self._left, len(data))
                data, self._left = data[taken:], self._left - taken
                continue
            size, found, rest = data.partition(b"\r\n")
            if not found:
                self._held = data
                break
            length = int(size, 16)
            self.ended = length == 0
            data, self._left = rest, length + 2
        return b"".join(parts)

    def _check(self, head: bytes, rest: bytes) -> None:
        status = head.split(b" ", 2)[1]
        if status != b"200" or b"chunked" not in head.lower():
            raise AnswerBroken(f"{status.decode()} {rest[:200].decode(errors='replace')}".strip())


class Exchange:
    """One request, and the way to answer it."""

    def __init__(self, transport: asyncio.Transport, method: str, target: str, body: bytes) -> None:
        self._transport = transport
        self.method = method
        self.target = target
        self.body = body

    @property
    def is_open(self) -> bool:
        """Whether the caller is still there."""
        return not self._transport.is_closing()

    def answer(
        self, body: bytes, *, status: str = "200 OK", kind: str = "application/json"
    ) -> None:
        """Answer in one piece."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
        self._transport.write(head.encode() + _HEAD_END + body)

    def begin(self, kind: str) -> None:
        """Begin an answer that comes in pieces."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked"
        self._transport.write(head.encode() + _HEAD_END)

    def send(self, data: bytes) -> None:
        """Send a piece."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes) -> None:
        """Send the last piece."""
        self.send(data)
        self._transport.write(b"0\r\n\r\n")


class Server(asyncio.Protocol):
    """Reads requests from one connection, gives each to *handle* when it is whole."""

    def __init__(self, handle: Callable[[Exchange], None]) -> None:
        self._handle = handle
        self._transport: asyncio.Transport | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._held += data
        while (taken := self._whole()) is not None:
            method, target, body = taken
            if self._transport is not None:
                self._handle(Exchange(self._transport, method, target, body))

    def _whole(self) -> tuple[str, str, bytes] | None:
        head, found, rest = self._held.partition(_HEAD_END)
        if not found:
            return None
        first, *fields = head.decode("latin-1").split("\r\n")
        headers = dict(field.lower().split(": ", 1) for field in fields if ": " in field)
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return None
        self._held = rest[length:]
        method, target, _ = first.split(" ", 2)
        return method, target, rest[:length]
