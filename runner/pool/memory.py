"""How much memory is left: of the host, and of the container the runner is in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_PLENTY = 1 << 62

# Version 2, and version 1: limit, use, and how much of that are files nobody reads any more.
_NAMES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_bytes(cgroup: Path = _CGROUP) -> int:
    """Return what is left, also below *cgroup*'s limit; very much where nothing tells."""
    return min(_of_host(), _of_container(cgroup))


def _of_host() -> int:
    with suppress(OSError, ValueError, KeyError):
        return _fields(_MEMINFO)["MemAvailable:"] << 10
    return _PLENTY


def _of_container(cgroup: Path) -> int:
    for limit, use, stat, unread in _NAMES:
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            limit_bytes = int((cgroup / limit).read_text(encoding="ascii"))
            used_bytes = int((cgroup / use).read_text(encoding="ascii"))
            return limit_bytes - used_bytes + _fields(cgroup / stat).get(unread, 0)
    return _PLENTY


def _fields(path: Path) -> dict[str, int]:
    """Return a file of lines that begin with a name and a number."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
