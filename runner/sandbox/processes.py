"""What /proc tells about the processes of a sandbox, from outside."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BLOCK_BYTES = 512
# Fields of /proc/PID/stat, counted from behind the name, which may hold anything.
_PARENT, _THREADS, _STARTED = 1, 17, 19


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One line of /proc/PID/stat, as far as needed here."""

    pid: int
    parent: int
    threads: int
    started: int


def read_stat(pid: int) -> ProcessStat | None:
    """Return what process *pid* is; None when it is gone."""
    try:
        line = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = line.rpartition(")")[2].split()
    return ProcessStat(pid, int(fields[_PARENT]), int(fields[_THREADS]), int(fields[_STARTED]))


def descendants(pid: int) -> list[ProcessStat]:
    """Return *pid*'s process and all below it.

    A sandbox has a PID namespace, whose first process inherits whatever loses its parent; so
    nothing inside gets out of this tree.
    """
    children: dict[int, list[ProcessStat]] = {}
    for name in os.listdir(_PROC):  # noqa: PTH208
        if name.isdigit() and (found := read_stat(int(name))) is not None:
            children.setdefault(found.parent, []).append(found)
    first = read_stat(pid)
    family = [first] if first is not None else []
    for member in family:
        family += children.get(member.pid, ())
    return family


def at_work_in(workspace: Path, seen_as: Path) -> list[int]:
    """Return the processes, in file systems of their own, that see *workspace* as *seen_as*."""
    wanted = workspace.stat()
    own = (_PROC / "self/ns/mnt").stat()
    found = []
    for name in os.listdir(_PROC):  # noqa: PTH208
        if not name.isdigit():
            continue
        with suppress(OSError):
            process = _PROC / name
            seen = Path(f"{process}/root{seen_as}").stat()
            if os.path.samestat(seen, wanted) and (process / "ns/mnt").stat() != own:
                found.append(int(name))
    return found


def private_bytes(pid: int) -> int:
    """Return the memory of *pid* that no file backs, copy-on-write copies counted in full."""
    try:
        _, resident, shared, *_ = (_PROC / str(pid) / "statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES


def proportional_bytes(pid: int) -> int:
    """Return the memory of *pid*, each shared page counted by its share; slow."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return private_bytes(pid)


def deleted_bytes(pids: list[int], device: int) -> int:
    """Return what deleted files on *device* still take because *pids* hold them."""
    held: dict[int, int] = {}
    for pid in pids:
        held |= _deleted_open(_PROC / str(pid) / "fd", device)
        for inode, size in _deleted_mapped(pid, device).items():
            held.setdefault(inode, size)
    return sum(held.values())


def _deleted_open(directory: Path, device: int) -> dict[int, int]:
    found: dict[int, int] = {}
    with suppress(OSError):
        for name in os.listdir(directory):  # noqa: PTH208
            with suppress(OSError):
                info = (directory / name).stat()
                if stat.S_ISREG(info.st_mode) and (info.st_nlink, info.st_dev) == (0, device):
                    found[info.st_ino] = info.st_blocks * _BLOCK_BYTES
    return found


def _deleted_mapped(pid: int, device: int) -> dict[int, int]:
    """Return inode → mapped bytes: more than a file takes, where it is sparse."""
    where = f"{os.major(device):02x}:{os.minor(device):02x}"
    found: dict[int, int] = {}
    with suppress(OSError):
        text = (_PROC / str(pid) / "maps").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if not line.endswith(" (deleted)"):
                continue
            addresses, _, _, on, inode, *_ = line.split()
            if on == where:
                first, last = (int(address, 16) for address in addresses.split("-"))
                found[int(inode)] = found.get(int(inode), 0) + last - first
    return found
