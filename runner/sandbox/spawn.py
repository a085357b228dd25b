"""A process that really ends, with everything it started in its group."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from runner.contract.problems import OpenCodeUnavailable
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

_LINE_LIMIT_BYTES = 1 << 20  # of asyncio's reader; the ACP connection splits lines itself
_KILL_TIMEOUT_S = 5.0


@asynccontextmanager
async def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    grace_s: float,
    pass_fds: Sequence[int] = (),
    ask: Callable[[Process], None] | None = None,
) -> AsyncIterator[Process]:
    """Run *argv* while the block runs; end its process group afterwards.

    *ask* asks it to end by itself within *grace_s*; left out: SIGTERM to its group.

    Raises:
        OpenCodeUnavailable: *argv* can't be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=dict(env),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_LIMIT_BYTES,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as exc:
        raise OpenCodeUnavailable from exc
    try:
        yield process
    finally:
        await finish(_end(process, grace_s, ask or _terminate))


async def _end(process: Process, grace_s: float, ask: Callable[[Process], None]) -> None:
    """Ask, then insist, each with a bounded wait."""
    if process.returncode is None:
        ask(process)
        if not await _ended(process, grace_s):
            signal_group(process.pid, signal.SIGKILL)
            await _ended(process, _KILL_TIMEOUT_S)
    signal_group(process.pid, signal.SIGKILL)  # children that outlived their parent
    # Closes the pipes even where a grandchild still holds their other ends.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


async def _ended(process: Process, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
    return process.returncode is not None


def _terminate(process: Process) -> None:
    signal_group(process.pid, signal.SIGTERM)


def close_stdin(process: Process) -> None:
    """Ask by end of input, for a program whose signals don't reach it."""
    if process.stdin is not None:
        process.stdin.close()


def signal_group(pid: int, sig: signal.Signals) -> None:
    """Send *sig* to the process group *pid*, if there is still one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sig)
