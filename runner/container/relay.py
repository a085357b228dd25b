"""Carries connections from the door, a TCP socket, to the runner's unix socket."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from runner.container.child import leave_pipes

if TYPE_CHECKING:
    import socket
    from asyncio import StreamReader, StreamWriter

_PIECE_BYTES = 64 << 10


def relay(door: socket.socket, runner: str) -> NoReturn:
    """Carry whatever comes to *door* to the unix socket *runner*, until the process ends."""
    leave_pipes()
    asyncio.run(serve(door, runner))
    raise SystemExit


async def serve(door: socket.socket, runner: str) -> None:
    """Carry, for ever."""

    async def carry(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(runner)
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
            far_writer.close()
        writer.close()

    server = await asyncio.start_server(carry, sock=door)
    await server.serve_forever()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_PIECE_BYTES):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
