"""The mark of a sandbox on the host: what a later runner must know to clear up after this one.

It lies in the run directory, beside what the sandbox sees, so no tenant can write it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runner.sandbox.cgroups import Cgroup
from runner.sandbox.processes import at_work_in, read_stat

if TYPE_CHECKING:
    from typing import Any

_NAME = "sandbox.json"
_CGROUPS = Path("/sys/fs/cgroup")
_PATIENCE_S = 5.0
_POLL_S = 0.02


def cgroup_name(directory: Path) -> str:
    """Return the name only the sandbox of *directory* gives its cgroup."""
    return f"opencode-run-{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]}"


def write(directory: Path, cgroup: Cgroup | None, pid: int | None = None) -> None:
    """Leave the mark of the sandbox in *cgroup* whose outermost process is *pid*."""
    started = read_stat(pid) if pid is not None else None
    content = {
        "pid": pid,
        "started": started.started if started else None,
        "cgroups": [str(path) for path in cgroup.directories] if cgroup else [],
    }
    new = directory / f"{_NAME}.new"
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(directory / _NAME)  # whole or not at all: the runner may be killed meanwhile


def end_strays(directory: Path, workspace: Path) -> None:
    """End what works in *directory*, seen as *workspace* inside; blocks until it is gone.

    Also finds what gets away when bwrap is killed in its first milliseconds, before it has told
    its child to die with it.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while (strays := _strays(directory, workspace)) and time.monotonic() < deadline:
        for pid in strays:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _strays(directory: Path, workspace: Path) -> list[int]:
    try:
        return at_work_in(directory / "workspace", workspace)
    except OSError:
        return []


def sweep(directory: Path, workspace: Path) -> None:
    """End what the sandbox of *directory* left, if it was ours; blocks a few seconds at most.

    A process is only ended if it began when the mark says or works in *directory*, seen as
    *workspace*; a cgroup only if it has the name that belongs to *directory*.
    """
    left = _read(directory)
    pid = left.get("pid")
    if isinstance(pid, int) and (found := read_stat(pid)) and found.started == left.get("started"):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    name = cgroup_name(directory)
    paths = [Path(str(path)) for path in left.get("cgroups", [])]
    ours = [p for p in paths if p.name == name and p.is_relative_to(_CGROUPS) and p.is_dir()]
    if ours:
        cgroup = Cgroup(directories=ours, memory=None, pids=None)
        cgroup.kill()
        cgroup.remove()
    end_strays(directory, workspace)


def _read(directory: Path) -> dict[str, Any]:
    try:
        content = json.loads((directory / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
