"""Nothing that a part started outlives the stack, not even after the part was killed.

The supervisor makes itself the parent of its descendants' orphans (Linux's "child subreaper"),
so that it can see and end them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PARENT_FIELD = 1  # of /proc/<pid>/stat, counted after the command's closing parenthesis
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of every process below this one that loses its own."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(ours: frozenset[int]) -> None:
    """Collect adopted orphans that have ended; *ours* are waited for elsewhere."""
    for pid in children() - ours:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end_orphans(*, within_s: float) -> None:
    """Kill every child that is left, and the children they leave, until there are none."""
    deadline = time.monotonic() + within_s
    while (left := children()) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            _wait(pid, deadline)


def children() -> set[int]:
    """Return the ids of this process's children, ended ones included."""
    me = str(os.getpid())
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                after_name = (entry / "stat").read_text(errors="replace").rpartition(")")[2]
                if after_name.split()[_PARENT_FIELD] == me:
                    found.add(int(entry.name))
    return found


def _wait(pid: int, deadline: float) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
