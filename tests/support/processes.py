"""Looking at the processes of this machine, and waiting for what must become true."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def pids() -> Iterator[int]:
    """Yield every process but this one."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            yield int(entry.name)


def mentioning(text: str) -> list[int]:
    """Return the living processes with *text* in their command line or environment."""
    wanted = text.encode()
    found = []
    for pid in pids():
        with suppress(OSError):
            proc = Path(f"/proc/{pid}")
            if wanted in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes():
                found.append(pid)
    return found


def descendants(root: int) -> list[int]:
    """Return the processes below *root*, however deep."""
    parents: dict[int, int] = {}
    for pid in pids():
        with suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
    found: list[int] = []
    level = [root]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found += level
    return found


def alive(wanted: Iterable[int]) -> list[int]:
    """Return those of *wanted* that live (zombies don't)."""
    living = []
    for pid in wanted:
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            if stat.rpartition(")")[2].split()[0] not in {"Z", "X"}:
                living.append(pid)
    return living


def files_with(text: str, directory: Path) -> list[Path]:
    """Return the files below *directory* that contain *text*."""
    wanted = text.encode()
    found = []
    for path in directory.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink() and wanted in path.read_bytes():
                found.append(path)
    return found


async def eventually(condition: Callable[[], object], *, within_s: float = 15.0) -> None:
    """Wait until *condition* is truthy, looking often; fail after *within_s*."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {within_s} s"
        await asyncio.sleep(0.02)
