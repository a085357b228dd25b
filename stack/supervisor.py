"""Start the parts, keep them running, end them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.plumbing.cleanup import finish
from runner.plumbing.process import end_with_parent
from runner.sandbox.spawn import signal_group
from stack import orphans

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from runner.plumbing.signals import StopSignals
    from stack.parts import Part

_KILL_WAIT_S = 5.0
_FIRST_DELAY_S = 0.2
_MAX_DEATHS = 5
_WITHIN_S = 60.0
_STDERR = 2


class PartFailed(Exception):
    """A part can't be started, keeps ending or did not get ready; the text says which."""


@dataclass(slots=True)
class Running:
    """A part that was started; *process* is its latest."""

    part: Part
    process: Process


async def supervise(
    parts: Sequence[Part],
    *,
    stop: StopSignals,
    until_ready: Callable[[], Coroutine[Any, Any, None]],
    on_ready: Callable[[], None],
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Start *parts* in order, keep them until *stop*, end them in the reverse order.

    One that ends once everything has been ready is started again, and *say* is told.

    Raises:
        PartFailed: One of them ended before, or keeps ending; the others are ended then too.
    """
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(_started(part, stop)) for part in parts]
        stack.enter_context(_reaping(started))
        await _first_of(stop, started, until_ready())
        if stop.requested.is_set():
            return
        on_ready()
        keeping = [_keep(running, say) for running in started]
        await _first_of(stop, (), _all_of(keeping))


async def _first_of(
    stop: StopSignals, started: Sequence[Running], work: Coroutine[Any, Any, object]
) -> None:
    """Wait for the first of these: *stop*, the end of a part, *work* being done."""
    asked = asyncio.create_task(stop.requested.wait())
    done = asyncio.create_task(work)
    deaths = {asyncio.create_task(running.process.wait()): running for running in started}
    waited: set[asyncio.Task[Any]] = {asked, done, *deaths}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return
        for death, running in deaths.items():
            if death.done():
                raise PartFailed(f"{_how_it_ended(running)}, so everything else was ended too")
        done.result()
    finally:
        for task in waited:
            task.cancel()
        await asyncio.gather(*waited, return_exceptions=True)


async def _all_of(keeping: Sequence[Coroutine[Any, Any, None]]) -> None:
    tasks = [asyncio.create_task(keep) for keep in keeping]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(running: Running, say: Callable[[str], None]) -> None:
    """Start *running* again whenever it ends, a little later each time.

    Raises:
        PartFailed: It ended too often in too short a time.
    """
    deaths: deque[float] = deque(maxlen=_MAX_DEATHS)
    while True:
        await running.process.wait()
        signal_group(running.process.pid, signal.SIGKILL)  # what is left of its group
        deaths.append(time.monotonic())
        recent = [at for at in deaths if at > deaths[-1] - _WITHIN_S]
        if len(recent) == _MAX_DEATHS:
            raise PartFailed(f"{_how_it_ended(running)} again and again; everything else ends too")
        say(f"{_how_it_ended(running)}; starting it again …")
        await asyncio.sleep(_FIRST_DELAY_S * 2 ** (len(recent) - 1))
        running.process = await _spawned(running.part)


def _how_it_ended(running: Running) -> str:
    status = running.process.returncode or 0
    how = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
    return f"the {running.part.name} ended ({how})"


@asynccontextmanager
async def _started(part: Part, stop: StopSignals) -> AsyncIterator[Running]:
    """Run *part* while the block runs."""
    running = Running(part, await _spawned(part))
    try:
        yield running
    finally:
        await finish(_end(running.process, part, stop))


async def _spawned(part: Part) -> Process:
    """Start *part* in a session of its own, which the terminal can't signal."""
    try:
        return await asyncio.create_subprocess_exec(
            *part.command,
            env=dict(part.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=_STDERR,  # stdout is for the block that people and programs read
            pass_fds=part.pass_fds,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    except OSError as exc:
        raise PartFailed(f"the {part.name} can't be started: {exc.strerror}") from exc


async def _end(process: Process, part: Part, stop: StopSignals) -> None:
    """Ask, then insist; a second signal from outside cuts the asking short."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        await _wait(process, stop.insisted, part.grace_s)
    signal_group(process.pid, signal.SIGKILL)  # what is left of its group as well
    with suppress(TimeoutError):
        async with asyncio.timeout(_KILL_WAIT_S):
            await process.wait()


async def _wait(process: Process, cut_short: asyncio.Event, timeout_s: float) -> None:
    waits = {
        asyncio.ensure_future(process.wait()),
        asyncio.ensure_future(cut_short.wait()),
    }
    await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


@contextmanager
def _reaping(started: Sequence[Running]) -> Iterator[None]:
    """Collect adopted orphans as they end, so that none stays behind as a zombie."""
    loop = asyncio.get_running_loop()

    def reap() -> None:
        orphans.reap(frozenset(running.process.pid for running in started))

    loop.add_signal_handler(signal.SIGCHLD, reap)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)
