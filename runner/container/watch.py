"""What only somebody inside a container can see of its processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.sandbox.processes import deleted_bytes, descendants

if TYPE_CHECKING:
    from pathlib import Path


class Watch:
    """Looks at everything that the container's first process has started.

    Args:
        workspace: What lies on this directory's device is counted.
        processes: So many of them, or threads, are too many.
    """

    def __init__(self, workspace: Path, *, processes: int) -> None:
        self._device = workspace.stat().st_dev
        self._most = processes
        self._told: dict[str, object] = {"crowded": False, "deleted_bytes": 0, "hidden": False}

    def look(self) -> dict[str, object]:
        """Return what is new: `crowded`, `deleted_bytes`, `hidden`."""
        family = descendants(os.getpid())[1:]
        pids = [member.pid for member in family]
        seen: dict[str, object] = {
            "crowded": sum(member.threads for member in family) >= self._most,
            "deleted_bytes": deleted_bytes(pids, self._device),
            "hidden": any(_is_hidden(pid) for pid in pids),
        }
        news = {name: value for name, value in seen.items() if value != self._told[name]}
        self._told |= news
        return news


def _is_hidden(pid: int) -> bool:
    """Whether *pid* keeps even its own user from seeing what it holds open."""
    try:
        os.scandir(f"/proc/{pid}/fd").close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False
