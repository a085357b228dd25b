"""How much memory is left: of the host, and of the container the runner is in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_LIMIT_AND_USE = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
_PLENTY = 1 << 62


def available_bytes() -> int:
    """Return what is left; a very large number where nothing tells."""
    return min(_of_host(), _of_container())


def _of_host() -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return _PLENTY


def _of_container() -> int:
    for limit, use in _LIMIT_AND_USE:
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            limit_bytes = int((_CGROUP / limit).read_text(encoding="ascii"))
            return limit_bytes - int((_CGROUP / use).read_text(encoding="ascii"))
    return _PLENTY
