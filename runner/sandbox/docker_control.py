"""The runner's end of the socket by which a container's first process speaks.

The other end is `runner.container`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from runner.contract.problems import OpenCodeUnavailable, SandboxUnavailable
from runner.plumbing.cleanup import finish
from runner.plumbing.descriptors import as_address, readable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_NAME = "socket"
_BACKLOG = 64
_PRIVATE = 0o600
_REPORT_BYTES = 4096
_START_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a container's first process is to do.

    Attributes:
        processes: So many of the command's processes are too many.
    """

    command: list[str]
    environment: dict[str, str]
    processes: int


@contextmanager
def listening(directory: Path, *, owner: int | None) -> Iterator[socket.socket]:
    """Yield a socket that listens in *directory*, for the user *owner* (None: this one)."""
    path = directory / _NAME
    with socket.socket(socket.AF_UNIX) as door:
        with as_address(path) as address:
            door.bind(address)
        path.chmod(_PRIVATE)
        if owner is not None:
            os.chown(path, owner, owner)
        door.listen(_BACKLOG)
        door.setblocking(False)  # noqa: FBT003
        yield door


@dataclass(eq=False)
class Control:
    """The connection to one container's first process.

    Attributes:
        door: Listening socket that only this container reaches.
        deleted_bytes: What deleted files take that it holds.
        is_crowded: Whether it ever had as many processes as it may have.
        hides: Whether a process in it hides what it holds.
        returncode: How the command ended, as asyncio tells it.
    """

    door: socket.socket
    writer: asyncio.StreamWriter
    deleted_bytes: int = 0
    is_crowded: bool = False
    hides: bool = False
    returncode: int | None = None
    said_goodbye: bool = False
    failure: str = ""
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _is_missing: bool = False

    async def started(self) -> None:
        """Wait until the command runs.

        Raises:
            OpenCodeUnavailable: There is no such program in the image.
            SandboxUnavailable: It did not come to that.
        """
        await self._settled.wait()
        if self._is_missing:
            raise OpenCodeUnavailable
        if self.returncode is not None and not self.said_goodbye:
            reason = self.failure or "the container ended before it began"
            raise SandboxUnavailable(reason=reason)

    async def wait(self) -> int:
        """Wait for the command to end; return how it did."""
        await self._ended.wait()
        return self.returncode if self.returncode is not None else -signal.SIGKILL

    @property
    def was_killed(self) -> bool:
        """Whether the command, or the whole container, ended by force."""
        return self.returncode == -signal.SIGKILL

    def dismiss(self) -> None:
        """Let the container's first process end, and everything in it."""
        if self.writer.can_write_eof() and not self.writer.is_closing():
            self.writer.write_eof()

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take reports, to the end."""
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        except (ConnectionError, ValueError) as exc:
            log.warning("container_report_failed", error=type(exc).__name__)
        finally:
            self.returncode = -signal.SIGKILL if self.returncode is None else self.returncode
            self._settled.set()
            self._ended.set()

    def _take(self, report: dict[str, Any]) -> None:
        self.deleted_bytes = report.get("deleted_bytes", self.deleted_bytes)
        self.is_crowded |= report.get("crowded", False)
        self.hides = report.get("hidden", self.hides)
        self.failure = report.get("failed", self.failure)
        self._is_missing |= "missing" in report
        if "ended" in report:
            self.said_goodbye = True
            self.returncode = int(report["ended"])
            self._ended.set()
        if "started" in report or "missing" in report:
            self._settled.set()


@asynccontextmanager
async def controlled(
    offered: socket.socket, directory: Path, order: Order, gone: asyncio.Event
) -> AsyncIterator[Control]:
    """Give *order* to the container that comes to *offered*, in *directory*.

    On exit the container's first process knows that the runner wants it no more.

    Raises:
        SandboxUnavailable: None came, or it did not understand; *gone* says that none will.
        OpenCodeUnavailable: The command is not in the image.
    """
    connection = await _accepted(offered, gone)
    try:
        door = await _door_of(connection)
        if door is not None:
            (directory / _NAME).unlink()
            offered.close()
        reader, writer = await asyncio.open_unix_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
    control = Control(door=door or offered, writer=writer)
    listening_ = asyncio.create_task(control.listen(reader))
    try:
        await _begun(control, json.dumps({"relay": door is None, **asdict(order)}))
        yield control
    finally:
        await finish(_end(control, listening_))
        control.door.close()


async def _begun(control: Control, order: str) -> None:
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            control.writer.write(order.encode() + b"\n")
            await control.writer.drain()
            await control.started()
    except ConnectionError as exc:
        raise SandboxUnavailable(reason="the container ended before it began") from exc
    except TimeoutError as exc:
        raise SandboxUnavailable(reason="the container did not start in time") from exc


async def _end(control: Control, listening_: asyncio.Task[None]) -> None:
    control.dismiss()
    await asyncio.wait({listening_}, timeout=_END_TIMEOUT_S)  # it closes its end when it ends
    listening_.cancel()
    await asyncio.wait({listening_})
    control.writer.transport.abort()


async def _accepted(offered: socket.socket, gone: asyncio.Event) -> socket.socket:
    accepting = asyncio.create_task(asyncio.get_running_loop().sock_accept(offered))
    leaving = asyncio.create_task(gone.wait())
    try:
        await asyncio.wait(
            {accepting, leaving},
            timeout=_START_TIMEOUT_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if accepting.done():
            return accepting.result()[0]
        raise SandboxUnavailable(reason="no word came out of the container: is its image ours?")
    finally:
        accepting.cancel()
        leaving.cancel()


async def _door_of(connection: socket.socket) -> socket.socket | None:
    """Return the door, where the container's kernel lets a descriptor out."""
    connection.setblocking(False)  # noqa: FBT003
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await readable(connection.fileno())
    except TimeoutError as exc:
        raise SandboxUnavailable(reason="the container offered no door") from exc
    _, fds, _, _ = socket.recv_fds(connection, 1, 1)
    if not fds:
        return None
    door = socket.socket(fileno=fds[0])
    door.setblocking(False)  # noqa: FBT003
    return door
