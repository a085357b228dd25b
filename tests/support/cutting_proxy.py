"""A TCP proxy that breaks each connection after some bytes of the answer, wherever they end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import AsyncIterator, Callable

_PIECE_BYTES = 1 << 16


class CuttingProxy:
    """Passes on what comes; `lifetime` says after how many bytes a new connection is cut.

    Attributes:
        port: Where it listens.
        cuts: How many connections it has broken.
    """

    def __init__(self, target_port: int, lifetime: Callable[[], int]) -> None:
        self.port = 0
        self.cuts = 0
        self._target_port = target_port
        self._lifetime = lifetime
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve a new connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Break what is left."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        asking = asyncio.create_task(_pump(reader, forth))
        try:
            await self._answer(back, writer)
        finally:
            asking.cancel()
            await asyncio.wait({asking})
            writer.transport.abort()
            forth.transport.abort()

    async def _answer(self, back: StreamReader, writer: StreamWriter) -> None:
        left = self._lifetime()
        with suppress(ConnectionError):
            while data := await back.read(_PIECE_BYTES):
                writer.write(data[:left])
                await writer.drain()
                left -= len(data)
                if left <= 0:
                    self.cuts += 1
                    # What was written has to leave before the connection breaks.
                    writer.close()
                    await writer.wait_closed()
                    return


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_PIECE_BYTES):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def cutting_proxy(
    target_port: int, lifetime: Callable[[], int]
) -> AsyncIterator[CuttingProxy]:
    """Proxy to *target_port* of loopback while the block runs."""
    proxy = CuttingProxy(target_port, lifetime)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
