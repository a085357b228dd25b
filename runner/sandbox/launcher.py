"""Starting a command through `launch`, and learning how far it came."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.contract.problems import SandboxUnavailable
from runner.plumbing.cleanup import finish
from runner.plumbing.descriptors import readable
from runner.sandbox.spawn import spawn

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

_LAUNCH = Path(__file__).with_name("launch.py")
_START_TIMEOUT_S = 20.0
_MESSAGE_BYTES = 4096
_END_TIMEOUT_S = 5.0
_END_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What to start and how.

    Attributes:
        argv: The program to become, by absolute path.
        steps: What `launch` does before, as its module tells.
        fds: Descriptors the program inherits, under the numbers they have here.
        ask: Asks the program to end; left out: a SIGTERM to its process group.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    grace_s: float
    steps: Mapping[str, Any] = field(default_factory=dict)
    fds: Sequence[int] = ()
    ask: Callable[[Process], None] | None = None


@asynccontextmanager
async def launched(launch: Launch) -> AsyncIterator[tuple[Process, socket.socket | None]]:
    """Yield the process, which has become its program, and the door if `port` asked for one.

    Call it in the thread of the event loop: the process dies with the thread that made it.

    Raises:
        SandboxUnavailable: A step failed; `reason` in the params says which.
        OpenCodeUnavailable: Not even the interpreter could be started.
    """
    ours, theirs = socket.socketpair()
    with ours, ExitStack() as held:
        held.enter_context(theirs)
        spec = {
            **launch.steps,
            "argv": list(launch.argv),
            "control": theirs.fileno(),
            "parent": os.getpid(),
        }
        fd = held.enter_context(memory_file(json.dumps(spec).encode()))
        argv = [sys.executable, "-I", "-S", str(_LAUNCH), str(fd)]
        fds = (fd, theirs.fileno(), *launch.fds)
        async with spawn(
            argv,
            cwd=launch.cwd,
            env=launch.env,
            grace_s=launch.grace_s,
            pass_fds=fds,
            ask=launch.ask,
        ) as process:
            held.close()
            door = await _settled(ours)
            try:
                yield process, door
            finally:
                # Closed by the caller's own end first; a socket in use would be a bug of ours.
                if door is not None:
                    door.close()


@contextmanager
def memory_file(data: bytes) -> Iterator[int]:
    """Yield a descriptor of a file in memory that reads as *data*."""
    fd = os.memfd_create("sandbox")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


async def _settled(control: socket.socket) -> socket.socket | None:
    """Return the door once `launch` has become the program, which closes its *control*."""
    control.setblocking(False)  # noqa: FBT003
    door: socket.socket | None = None
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                await readable(control.fileno())
                message, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1)
                if fds:
                    door = socket.socket(fileno=fds[0])
                    door.setblocking(False)  # noqa: FBT003
                elif message:
                    reason = message.decode(errors="replace")
                    raise SandboxUnavailable(reason=reason)  # noqa: TRY301
                else:
                    return door
    except BaseException as exc:
        if door is not None:
            door.close()
        if isinstance(exc, TimeoutError):
            raise SandboxUnavailable(reason="the sandbox did not start in time") from exc
        raise


@asynccontextmanager
async def outlived(end: Callable[[], None]) -> AsyncIterator[int]:
    """Yield a descriptor; after the block, wait (bounded) until nobody has it any more.

    The first process of a PID namespace, which gets it, closes it when it dies. With it the
    kernel kills the rest, but that takes a moment: *end*, in a thread, sees to it. It is called
    sooner where the first process lives on.
    """
    reading, writing = os.pipe()
    ours = [writing]

    async def gone() -> None:
        os.close(ours.pop())
        deadline = time.monotonic() + _END_TIMEOUT_S
        try:
            while not await _has_ended(reading) and time.monotonic() < deadline:
                await asyncio.to_thread(end)
            await asyncio.to_thread(end)
        finally:
            os.close(reading)

    try:
        yield writing
    finally:
        await finish(gone())


async def _has_ended(fd: int) -> bool:
    try:
        async with asyncio.timeout(_END_POLL_S):
            await readable(fd)
    except TimeoutError:
        return False
    return True
