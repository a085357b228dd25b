"""Walking a tree that belongs to somebody else: through file descriptors, never a link.

Whatever a tenant made of its directories (links out of them, 10,000 levels, folders nobody
may open), a walk stays inside and never needs more than a handful of file descriptors.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Visit = Callable[[int, os.DirEntry[str]], None]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own block is


class TreeChanged(OSError):
    """The tree was rearranged while it was walked."""


class Stopped(Exception):
    """Whoever wanted the walk wants it no more."""


@dataclass(slots=True)
class Usage:
    """What a tree takes: bytes on disk, and entries."""

    disk_bytes: int = 0
    entries: int = 0


def open_directory(name: str, parent: int) -> int:
    """Return a descriptor of directory *name* in *parent*, opened up for its owner if needed.

    Raises:
        NotADirectoryError: It is something else; a link is not followed.
        OSError: It is gone, or belongs to another user.
    """
    with suppress(PermissionError):
        return os.open(name, _DIRECTORY, dir_fd=parent)
    # O_PATH needs no right on the directory itself; through it the mode changes for sure on
    # this very directory, not on what somebody puts in its place.
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        itself = f"/proc/self/fd/{handle}"
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.chmod(itself, mode | stat.S_IRWXU)  # noqa: PTH101
        return os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Yield a descriptor of the directory *path*, which must not be a link itself."""
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = open_directory(path.name, parent)
    finally:
        os.close(parent)
    try:
        yield fd
    finally:
        os.close(fd)


def measure(path: Path, *, stop: threading.Event) -> Usage:
    """Return what the tree *path* takes.

    Raises:
        TreeChanged: It was rearranged meanwhile; try again.
        Stopped: *stop* was set.
    """
    total = Usage()

    def add(_directory: int, entry: os.DirEntry[str]) -> None:
        total.entries += 1
        with suppress(FileNotFoundError):
            info = entry.stat(follow_symlinks=False)
            total.disk_bytes += info.st_blocks * _BLOCK_BYTES

    walk(path, add, stop=stop)
    return total


def give(path: Path, *, uid: int, gid: int, stop: threading.Event) -> None:
    """Make the tree *path* belong to *uid* and *gid*; for root only.

    Raises:
        TreeChanged, Stopped: As `measure`.
    """

    def change(directory: int, entry: os.DirEntry[str]) -> None:
        os.chown(entry.name, uid, gid, dir_fd=directory, follow_symlinks=False)

    walk(path, change, stop=stop)
    os.chown(path, uid, gid, follow_symlinks=False)


def walk(path: Path, visit: Visit, *, stop: threading.Event) -> None:
    """Call *visit* with (descriptor of its directory, entry) for everything below *path*.

    Other file systems mounted below are not entered.

    Raises:
        TreeChanged: It was rearranged meanwhile.
        Stopped: *stop* was set.
    """
    with opened(path) as root:
        walker = _Walker(os.dup(root), visit, stop)
    try:
        walker.read()
        while walker.levels:
            if walker.levels[-1].left:
                walker.descend()
            else:
                walker.ascend()
    finally:
        os.close(walker.here)


@dataclass(slots=True)
class _Level:
    """One directory on the way down: which it is, and what is still to visit in it."""

    device: int
    inode: int
    left: list[str] = field(default_factory=list)


class _Walker:
    """A place in the tree; the way back up is `..`, checked to be where it came from."""

    def __init__(self, here: int, visit: Visit, stop: threading.Event) -> None:
        self.here = here
        self.levels: list[_Level] = []
        self._visit = visit
        self._stop = stop

    def read(self) -> None:
        """Visit the entries of the directory it stands in."""
        info = os.fstat(self.here)
        level = _Level(info.st_dev, info.st_ino)
        self.levels.append(level)
        with os.scandir(self.here) as entries:
            for entry in entries:
                if self._stop.is_set():
                    raise Stopped
                self._visit(self.here, entry)
                if entry.is_dir(follow_symlinks=False):
                    level.left.append(entry.name)

    def descend(self) -> None:
        """Go into the next directory, unless it is gone."""
        with _as_change():
            try:
                below = open_directory(self.levels[-1].left.pop(), self.here)
            except FileNotFoundError:
                return
        if os.fstat(below).st_dev != self.levels[0].device:
            os.close(below)
            return
        os.close(self.here)
        self.here = below
        self.read()

    def ascend(self) -> None:
        """Go back to the directory above; at the top there is none."""
        self.levels.pop()
        if not self.levels:
            return
        with _as_change():
            above = os.open("..", _DIRECTORY, dir_fd=self.here)
        os.close(self.here)
        self.here = above
        info = os.fstat(above)
        if (info.st_dev, info.st_ino) != (self.levels[-1].device, self.levels[-1].inode):
            raise TreeChanged("a directory was moved")


@contextmanager
def _as_change() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise TreeChanged(exc.errno, "a directory became something else") from exc
