"""The tenant's command, as the child of a container's first process."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_OOM_SCORE = "1000"  # rather the command than this process
# What the container gets of the CPUs is its cgroup's; within it, this process is to be heard.
_NICENESS = 10
_RESET = (signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)


def start(command: list[str], environment: dict[str, str], cwd: Path) -> int | None:
    """Start *command*; return its process id, or None where there is no such program."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            _become(command, environment, cwd)
        except OSError:
            os.write(writing, b"!")
        finally:
            os._exit(127)
    os.close(writing)
    failed = os.read(reading, 1)
    os.close(reading)
    return None if failed else child


def _become(command: list[str], environment: dict[str, str], cwd: Path) -> NoReturn:
    os.setsid()
    os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    signal.set_wakeup_fd(-1)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    os.chdir(cwd)
    os.execve(command[0], command, environment)  # noqa: S606


def leave_pipes() -> None:
    """Let go of stdin and the outputs, so that they end when the command closes them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def reaped(child: int) -> int | None:
    """Wait for whatever has ended; return *child*'s status if that has."""
    ended = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended = status if pid == child else ended
    return ended
