"""The attached stream of a container: stdin one way, stdout and stderr by turns the other."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_HEADER_BYTES = 8  # which stream, three zeros, the length
_LIMIT_BYTES = 1 << 20


class Stdin:
    """Writes to the container; closing it leaves the other way open."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        """See `asyncio.StreamWriter.write`."""
        self._writer.write(data)

    async def drain(self) -> None:
        """See `asyncio.StreamWriter.drain`."""
        await self._writer.drain()

    def close(self) -> None:
        """Send the end of input."""
        if not self._writer.is_closing():
            self._writer.write_eof()


class _Gate(asyncio.ReadTransport):
    """Stands for a transport: keeps the pump waiting while a reader has enough."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()

    def pause_reading(self) -> None:
        """Keep the pump waiting."""
        self.open.clear()

    def resume_reading(self) -> None:
        """Let it go on."""
        self.open.set()


class _Output:
    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=_LIMIT_BYTES)
        self._gate = _Gate()
        self.reader.set_transport(self._gate)

    async def feed(self, data: bytes) -> None:
        self.reader.feed_data(data)
        await self._gate.open.wait()


class Attached:
    """The three streams."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.stdin = Stdin(writer)
        self._outputs = {1: _Output(), 2: _Output()}
        self.stdout = self._outputs[1].reader
        self.stderr = self._outputs[2].reader

    async def pump(self, reader: asyncio.StreamReader) -> None:
        """Sort what comes from *reader*, to its end."""
        try:
            while True:
                header = await reader.readexactly(_HEADER_BYTES)
                data = await reader.readexactly(int.from_bytes(header[4:], "big"))
                if (output := self._outputs.get(header[0])) is not None:
                    await output.feed(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.stdout.feed_eof()
            self.stderr.feed_eof()


@asynccontextmanager
async def attached(fd: int) -> AsyncIterator[Attached]:
    """Yield the streams behind the descriptor *fd*, which is closed afterwards."""
    connection = socket.socket(fileno=fd)
    try:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LIMIT_BYTES)
    except BaseException:
        connection.close()
        raise
    streams = Attached(writer)
    pumping = asyncio.create_task(streams.pump(reader))
    try:
        yield streams
    finally:
        await finish(_end(pumping, writer))


async def _end(pumping: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
    pumping.cancel()
    await asyncio.wait({pumping})
    writer.transport.abort()
