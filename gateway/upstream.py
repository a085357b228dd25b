"""Requests to PocketBase that have no body, over connections that stay open.

aiohttp's client connections and parsers, without its session: of what a session does for each
request (cookies, redirects, URLs, tracing) nothing is needed here, and it costs more than the rest.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import ClientConnectionError, ServerDisconnectedError, hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import StreamReader
    from multidict import CIMultiDictProxy

_CONNECT_S = 3.0
_IDLE_S = 15.0  # less than PocketBase waits
_MAX_IDLE = 256
_MAX_HEADER_BYTES = 64 << 10
_REPEATABLE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_DELETE})


class Answer(NamedTuple):
    """An answer whose head is there; give it back with `Upstream.done`."""

    status: int
    reason: str
    headers: CIMultiDictProxy[str]
    content: StreamReader
    connection: ResponseHandler


class Upstream:
    """Connections to one server."""

    def __init__(self, base_url: str) -> None:
        url = URL(base_url)
        self._host, self._port = url.host or "", url.port or 80
        self._ssl = ssl.create_default_context() if url.scheme == "https" else None
        self._host_header = url.raw_authority
        self._prefix = url.raw_path.rstrip("/")
        self._idle: deque[tuple[float, ResponseHandler]] = deque()

    async def ask(self, method: str, target: str, headers: Iterable[tuple[str, str]]) -> Answer:
        """Send a request and return its answer once the head is there.

        Where a connection that was kept turns out to be closed, another one is taken.

        Raises:
            ClientError, OSError, TimeoutError: There is no answer.
            ValueError: A header that can't be.
        """
        head = self._head(method, target, headers)
        while True:
            kept = self._kept()
            connection = await self._opened() if kept is None else kept
            try:
                return await self._exchange(connection, method, head)
            except BaseException as exc:
                connection.abort()
                broken = isinstance(exc, ServerDisconnectedError | OSError)
                if kept is None or not broken or method not in _REPEATABLE:
                    raise

    async def read(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], *, timeout_s: float
    ) -> tuple[int, bytes]:
        """Return the status and the whole body of an answer; see `ask` for the errors."""
        async with asyncio.timeout(timeout_s):
            answer = await self.ask(method, target, headers)
            try:
                return answer.status, await answer.content.read()
            finally:
                self.done(answer)

    def done(self, answer: Answer) -> None:
        """Keep the connection, or end it where there is more to come."""
        connection = answer.connection
        if connection.should_close or not connection.is_connected():
            connection.close()
            return
        self._idle.append((time.monotonic(), connection))
        if len(self._idle) > _MAX_IDLE:
            self._idle.popleft()[1].close()

    def close(self) -> None:
        """End the connections that are kept."""
        while self._idle:
            self._idle.pop()[1].close()

    def _head(self, method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
        lines = [f"{method} {self._prefix}{target} HTTP/1.1", f"Host: {self._host_header}"]
        lines += [f"{name}: {value}" for name, value in headers]
        head = "\r\n".join(lines)
        if head.count("\n") >= len(lines) or head.count("\r") >= len(lines) or "\0" in head:
            raise ValueError("a header with a line break")
        return f"{head}\r\n\r\n".encode(errors="surrogateescape")

    def _kept(self) -> ResponseHandler | None:
        oldest = time.monotonic() - _IDLE_S
        while self._idle:
            since, connection = self._idle.pop()
            if since >= oldest and connection.is_connected() and not connection.should_close:
                return connection
            connection.close()
        return None

    async def _opened(self) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_S):
            _, connection = await loop.create_connection(
                lambda: ResponseHandler(loop), self._host, self._port, ssl=self._ssl
            )
        return connection

    async def _exchange(self, connection: ResponseHandler, method: str, head: bytes) -> Answer:
        connection.set_response_params(
            skip_payload=method == hdrs.METH_HEAD,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )
        if connection.transport is None:
            raise ClientConnectionError("closed meanwhile")
        connection.transport.write(head)
        while True:
            try:
                message, content = await connection.read()
            except HttpProcessingError as exc:
                raise ClientConnectionError("no HTTP came back") from exc
            if message.code >= HTTPStatus.OK or message.code == HTTPStatus.SWITCHING_PROTOCOLS:
                return Answer(message.code, message.reason, message.headers, content, connection)
