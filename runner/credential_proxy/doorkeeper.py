"""Tells a door's two kinds of callers apart: model calls, and `CONNECT` where it is allowed.

Looks at a connection's first bytes and hands it on, bytes and all, to whom it is for. Lets in
only so many at once: each takes a descriptor, of which the runner has few for all its runs.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import structlog

from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp import web

    from runner.egress.tunnel import Egress

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CONNECT = b"CONNECT "
_MAX_HEAD_BYTES = 8192
_MAX_CONNECTIONS = 48


@asynccontextmanager
async def keep_door(
    door: socket.socket,
    egress: Egress | None,
    model_calls: web.Server,
    log_context: Callable[[], Mapping[str, Any] | None],
) -> AsyncIterator[None]:
    """Serve *door* while the block runs; on exit its tunnels are closed.

    Without *egress* everything is a model call, or nothing. *log_context* says what to log
    about a tunnel; None: nobody may have one now.
    """
    keeper = _Doorkeeper(egress, model_calls, log_context)
    loop = asyncio.get_running_loop()
    create = loop.create_unix_server if door.family == socket.AF_UNIX else loop.create_server
    server = await create(keeper.look_at, sock=door)
    try:
        yield
    finally:
        server.close()
        await finish(keeper.close())


class _Doorkeeper:
    """What is under way at one door."""

    def __init__(
        self,
        egress: Egress | None,
        model_calls: web.Server,
        log_context: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        self._egress = egress
        self._model_calls = model_calls
        self._log_context = log_context
        self._undecided: set[_FirstLook] = set()
        self._tunnels: set[asyncio.Task[None]] = set()

    def look_at(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        if self._connections >= _MAX_CONNECTIONS:
            return _TurnedAway()
        look = _FirstLook(self)
        self._undecided.add(look)
        return look

    def decide(self, look: _FirstLook, head: bytes) -> asyncio.Protocol:
        """Return who goes on with a connection that began with *head*."""
        self._undecided.discard(look)
        wants_out = head.startswith(_CONNECT) and self._log_context() is not None
        if self._egress is not None and wants_out:
            return self._tunnel(self._egress)
        return self._model_calls()  # refuses a CONNECT

    def forget(self, look: _FirstLook) -> None:
        """Forget a connection that ended before it said anything."""
        self._undecided.discard(look)

    async def close(self) -> None:
        """End what is under way, but for model calls, which end with their own server."""
        for look in list(self._undecided):
            look.abort()
        for task in self._tunnels:
            task.cancel()
        if self._tunnels:
            await asyncio.wait(self._tunnels, timeout=1)

    @property
    def _connections(self) -> int:
        return len(self._undecided) + len(self._tunnels) + len(self._model_calls.connections)

    def _tunnel(self, egress: Egress) -> asyncio.Protocol:
        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with structlog.contextvars.bound_contextvars(**(self._log_context() or {})):
                task = asyncio.create_task(_serve(egress, reader, writer))
            self._tunnels.add(task)
            task.add_done_callback(self._tunnels.discard)

        reader = asyncio.StreamReader(limit=_MAX_HEAD_BYTES)
        return asyncio.StreamReaderProtocol(reader, begin)


async def _serve(
    egress: Egress, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        await egress.serve(reader, writer)
    except OSError as exc:
        log.info("egress_broken", error=type(exc).__name__)
    finally:
        writer.close()


class _TurnedAway(asyncio.Protocol):
    """A connection more than one door may have."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it at once."""
        transport.close()


class _FirstLook(asyncio.Protocol):
    """A connection that has not said yet what it wants."""

    def __init__(self, keeper: _Doorkeeper) -> None:
        self._keeper = keeper
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but not by type

    def data_received(self, data: bytes) -> None:
        """Hand the connection on as soon as its kind is known."""
        self._head += data
        if _CONNECT.startswith(self._head) or self._transport is None:
            return
        heir = self._keeper.decide(self, self._head)
        self._transport.set_protocol(heir)
        heir.connection_made(self._transport)
        heir.data_received(self._head)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Be forgotten."""
        self._keeper.forget(self)

    def abort(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()
