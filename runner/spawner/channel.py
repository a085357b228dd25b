"""One connection between runner and spawner: a JSON object a message, descriptors beside it."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

from runner.plumbing.descriptors import as_address, readable

if TYPE_CHECKING:
    from pathlib import Path

_MESSAGE_BYTES = 64 << 10
_KIND = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class ChannelClosed(ConnectionError):
    """The other end is gone, or does not keep to the protocol."""


class Channel:
    """An end of a connection; owns its socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, message: dict[str, Any], *, fd: int | None = None) -> None:
        """Send *message*, and a copy of *fd*.

        Raises:
            ChannelClosed: The other end is gone, or takes nothing any more.
        """
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self._socket, [data], [] if fd is None else [fd])
        except OSError as exc:
            raise ChannelClosed from exc

    async def receive(self) -> tuple[dict[str, Any], int | None]:
        """Return the next message, and the descriptor that came with it: the caller's own.

        Raises:
            ChannelClosed: There is none any more.
        """
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, 1)
            except BlockingIOError:
                await readable(self._socket.fileno())
            except OSError as exc:
                raise ChannelClosed from exc
            else:
                return _decoded(data), (fds[0] if fds else None)

    def peer_uid(self) -> int:
        """Return the user of the process at the other end, as the kernel knows it."""
        size = 3 * 4  # struct ucred: pid, uid, gid
        ucred = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int.from_bytes(ucred[4:8], "little")

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


async def connect(path: Path) -> Channel:
    """Return a connection to who listens at *path*.

    Raises:
        OSError: Nobody does.
    """
    connection = socket.socket(socket.AF_UNIX, _KIND)
    try:
        with as_address(path) as address:
            await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return Channel(connection)


def listen(path: Path, *, backlog: int) -> socket.socket:
    """Return a socket that listens at *path*, in place of a dead one's."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, _KIND)
    try:
        with as_address(path) as address:
            listening.bind(address)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except ValueError as exc:
        raise ChannelClosed from exc
    if not isinstance(message, dict):
        raise ChannelClosed
    return message
