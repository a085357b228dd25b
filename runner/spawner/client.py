"""The runner's end of the spawner's API."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from runner.contract.problems import SandboxUnavailable
from runner.plumbing.cleanup import finish
from runner.spawner.channel import Channel, ChannelClosed, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runner.sandbox.base import Limits

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_KNOCK_INTERVAL_S = 0.1


@dataclass(slots=True)
class Container:
    """A container while it is leased.

    Attributes:
        attached_fd: Its stream; whoever takes it closes it.
        ran_out_of_memory: Set when the kernel has killed something in it.
        ended: Set when it has ended, or the spawner is gone.
    """

    attached_fd: int
    ran_out_of_memory: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Spawner:
    """Starts and stops containers by the spawner that listens at *path*.

    One that does not listen, as it is being started anew perhaps, gets *patience_s*.
    """

    def __init__(self, path: Path, *, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s

    @asynccontextmanager
    async def container(self, run: str, limits: Limits) -> AsyncIterator[Container]:
        """Yield the container of *run*; on exit it is gone.

        Raises:
            SandboxUnavailable: The spawner or its engine refuses.
        """
        channel = await self._connected()
        lease = _Lease(channel)
        try:
            reply, fd = await lease.ask({"do": "start", "run": run, "limits": asdict(limits)})
            if fd is None:
                raise SandboxUnavailable(reason=str(reply.get("reason", "the spawner is gone")))
            lease.container.attached_fd = fd
            yield lease.container
        finally:
            await finish(lease.end(run))

    async def stop(self, run: str) -> None:
        """End the container of *run*, if it has one, whoever started it.

        Raises:
            SandboxUnavailable: The spawner or its engine refuses.
        """
        lease = _Lease(await self._connected())
        await finish(lease.end(run))

    async def _connected(self) -> Channel:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return await connect(self._path)
            except OSError as exc:
                if time.monotonic() >= deadline:
                    raise SandboxUnavailable(
                        reason=f"no spawner listens at {self._path} ({exc.strerror}): start"
                        " `python -m runner.spawner`, or set RUNNER_SPAWNER_SOCKET"
                    ) from exc
            await asyncio.sleep(_KNOCK_INTERVAL_S)


class _Lease:
    """A connection to the spawner; what it started ends with it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.container = Container(attached_fd=-1)
        self._answers: asyncio.Queue[tuple[dict[str, Any], int | None]] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    async def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
        """Return the answer, with the descriptor that may come with it; {} from nobody.

        Raises:
            SandboxUnavailable: No answer came in time.
        """
        try:
            self._channel.send(request)
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._answers.get()
        except ChannelClosed:
            return {}, None
        except TimeoutError as exc:
            raise SandboxUnavailable(reason="the spawner does not answer") from exc

    async def end(self, run: str) -> None:
        """Have *run* ended and the connection closed, bounded."""
        try:
            self._channel.send({"do": "stop", "run": run})
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                answer: dict[str, Any] = {"do": "start"}
                while answer.get("do") == "start":  # that one may not have been waited for
                    answer, fd = await self._answers.get()
                    _close(fd)
                if "reason" in answer:
                    log.warning("container_may_be_left", reason=answer["reason"])
        except (ChannelClosed, TimeoutError):
            # Closing the connection says the same; and a dead spawner's next one clears up.
            log.warning("container_may_be_left", reason="the spawner does not answer")
        finally:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            self._channel.close()
            self._drop_answers()

    async def _read(self) -> None:
        try:
            while True:
                message, fd = await self._channel.receive()
                match message.get("is"):
                    case "out-of-memory":
                        self.container.ran_out_of_memory.set()
                    case "ended":
                        self.container.ended.set()
                    case _:
                        self._answers.put_nowait((message, fd))
        except ChannelClosed:
            self.container.ended.set()
            self._answers.put_nowait(({}, None))

    def _drop_answers(self) -> None:
        while not self._answers.empty():
            _close(self._answers.get_nowait()[1])


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
