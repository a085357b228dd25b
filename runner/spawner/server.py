"""The spawner: answers whoever may ask, and ends what nobody holds any more."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog
from pydantic import ValidationError

from runner.plumbing.cleanup import finish
from runner.spawner.channel import Channel, ChannelClosed, listen
from runner.spawner.directories import BadRunDirectory
from runner.spawner.engine import Engine, EngineFailed
from runner.spawner.messages import REQUEST, Request, Start, Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runner.spawner.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_WORKERS = 8
_OPEN = 0o666
_BACKLOG = 64
_MAX_CONNECTIONS = 512
_TIDY_INTERVAL_S = 30.0
_LOOK_AGAIN_S = 1.0
_CLOSE_TIMEOUT_S = 30.0


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[None]:
    """Serve while the block runs; on exit every container it started is gone.

    Raises:
        EngineFailed: The engine hasn't what sandboxes need.
        OSError: Nobody can listen at the socket.
    """
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="engine") as workers:
        spawner = _Spawner(settings, workers)
        await spawner.prepare()
        tasks = [asyncio.create_task(work()) for work in (spawner.accept, spawner.tidy)]
        tasks.append(asyncio.create_task(spawner.listen_to_engine()))
        try:
            yield
        finally:
            await finish(spawner.close(tasks))


class _Spawner:
    """What the connections have in common."""

    def __init__(self, settings: Settings, workers: ThreadPoolExecutor) -> None:
        self._settings = settings
        self._workers = workers
        self._uid = (
            os.geteuid() if settings.spawner_client_uid is None else settings.spawner_client_uid
        )
        self._leases: dict[str, Channel] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._closed = False
        self._events: Any = None

    async def prepare(self) -> None:
        """Look at the engine, then listen."""
        self._engine = await self._in_thread(Engine, self._settings)
        await self._in_thread(self._engine.check)
        self._listening = listen(self._settings.spawner_socket, backlog=_BACKLOG)
        # Everybody may knock; who is let in, the kernel tells.
        self._settings.spawner_socket.chmod(_OPEN)
        self._listening.setblocking(False)  # noqa: FBT003

    async def accept(self) -> None:
        """Serve connections, each in a task of its own."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listening)
            channel = Channel(connection)
            if channel.peer_uid() != self._uid or len(self._serving) >= _MAX_CONNECTIONS:
                log.warning("caller_refused", uid=channel.peer_uid())
                channel.close()
                continue
            task = asyncio.create_task(self._serve(channel))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, channel: Channel) -> None:
        try:
            while True:
                unverified, fd = await channel.receive()
                if fd is not None:
                    os.close(fd)
                    return
                await self._answer(channel, unverified)
        except ChannelClosed:
            pass
        finally:
            await finish(self._release(channel))

    async def _answer(self, channel: Channel, unverified: dict[str, Any]) -> None:
        try:
            request = REQUEST.validate_python(unverified)
        except ValidationError as exc:
            log.warning("request_refused", problems=exc.error_count())
            channel.send({"is": "refused", "reason": "not offered here"})
            return
        try:
            await self._do(channel, request)
        except (EngineFailed, BadRunDirectory) as exc:
            log.warning("request_failed", do=request.do, reason=str(exc))
            channel.send({"is": "refused", "do": request.do, "reason": str(exc)})

    async def _do(self, channel: Channel, request: Request) -> None:
        if isinstance(request, Start):
            await self._start(channel, request)
        elif isinstance(request, Stop):
            self._leases.pop(request.run, None)
            await self._in_thread(self._engine.stop, request.run)
            channel.send({"is": "done", "do": request.do})
        else:
            runs = await self._in_thread(self._engine.runs)
            channel.send({"is": "done", "do": request.do, "runs": runs})

    async def _start(self, channel: Channel, request: Start) -> None:
        if request.run in self._leases:
            raise EngineFailed("this run has a container already")
        if len(self._leases) >= self._settings.spawner_max_runs:
            raise EngineFailed("too many containers: raise SPAWNER_MAX_RUNS")
        self._leases[request.run] = channel
        try:
            fd = await self._in_thread(self._engine.start, request.run, request.limits)
        except BaseException:
            self._leases.pop(request.run, None)
            raise
        try:
            channel.send({"is": "done", "do": request.do}, fd=fd)
        finally:
            os.close(fd)

    async def _release(self, channel: Channel) -> None:
        """End what *channel* had started: whoever held it is gone."""
        channel.close()
        for run in [run for run, holder in self._leases.items() if holder is channel]:
            log.info("lease_ended", run=run)
            with suppress(EngineFailed):
                await self._in_thread(self._engine.stop, run)
            self._leases.pop(run, None)

    async def tidy(self) -> None:
        """Remove, now and then, containers that have ended and that nobody holds.

        One that runs is left alone: its runner may have outlived the spawner before this one.
        """
        while True:
            with suppress(EngineFailed):
                for run in await self._in_thread(self._engine.runs, dead=True):
                    if run not in self._leases:
                        await self._in_thread(self._engine.stop, run)
            await asyncio.sleep(_TIDY_INTERVAL_S)

    async def listen_to_engine(self) -> None:
        """Pass on what the engine tells of containers."""
        loop = asyncio.get_running_loop()

        def tell(event: str, run: str) -> None:
            loop.call_soon_threadsafe(self._tell, event, run)

        while not self._closed:
            try:
                await asyncio.to_thread(self._engine.events, tell, self._hold_events)
            except EngineFailed as exc:
                log.warning("no_events", reason=str(exc))
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _hold_events(self, stream: Any) -> None:
        self._events = stream

    def _tell(self, event: str, run: str) -> None:
        channel = self._leases.get(run)
        if channel is not None:
            with suppress(ChannelClosed):
                channel.send({"is": "out-of-memory" if event == "oom" else "ended"})

    async def close(self, tasks: list[asyncio.Task[None]]) -> None:
        """End everything, bounded."""
        self._closed = True
        if self._events is not None:
            self._events.close()
        for task in (*tasks, *self._serving):
            task.cancel()
        await asyncio.wait({*tasks, *self._serving}, timeout=_CLOSE_TIMEOUT_S)
        self._listening.close()
        self._settings.spawner_socket.unlink(missing_ok=True)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: function(*args, **kwargs))
