"""Removing a directory that fights back.

Nothing is trusted: modes of 000, links out of the tree, trees deeper than a path may be long,
names with newlines, a million files. No link is followed, no recursion, three descriptors in
all, and the event loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.sandbox.trees import open_directory

if TYPE_CHECKING:
    from pathlib import Path


# Of their own: a removal may take long, and others wait for the loop's threads.
_WORKERS = ThreadPoolExecutor(4, thread_name_prefix="removal")


class RemovalFailed(OSError):
    """Something of the directory is still there."""


async def remove_tree(path: Path, *, timeout_s: float = 60.0) -> None:
    """Remove *path* and everything below, in a thread; nothing there is fine.

    A link at *path* is removed itself. Call it when nothing writes there any more.

    Raises:
        RemovalFailed: It took longer than *timeout_s*, or something can't be removed.
    """
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    removing = loop.run_in_executor(_WORKERS, _remove, path, stop, timeout_s)
    try:
        await asyncio.shield(removing)
    except asyncio.CancelledError:
        stop.set()
        with suppress(RemovalFailed):
            await removing
        raise


def _remove(path: Path, stop: threading.Event, timeout_s: float) -> None:
    try:
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _Removal(stop, time.monotonic() + timeout_s).remove(path.name, parent)
    except OSError as exc:
        raise RemovalFailed(exc.errno, f"can't remove {path.name}: {exc.strerror}") from exc
    finally:
        os.close(parent)


class _Removal:
    """One removal: empties directories, lifting those inside up to the top of the tree.

    Lifting (a rename) is what makes depth harmless: whatever the tree looked like, soon every
    directory stands directly in the top one.
    """

    def __init__(self, stop: threading.Event, deadline: float) -> None:
        self._stop = stop
        self._deadline = deadline
        # Nobody can have a file of this name in the way.
        self._lifted = f".{secrets.token_hex(8)}-"
        self._count = 0

    def remove(self, name: str, parent: int) -> None:
        """Remove *name* in *parent*, whatever it is."""
        if _unlinked(name, parent):
            return
        top = _open_writable(name, parent)
        try:
            device = os.fstat(top).st_dev
            pending = self._emptied(top, top)
            while pending:
                pending += self._without(pending.pop(), top, device)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=parent)

    def _without(self, name: str, top: int, device: int) -> list[str]:
        """Remove directory *name* in *top*; return the directories lifted out of it."""
        here = _open_writable(name, top)
        try:
            if os.fstat(here).st_dev != device:
                raise RemovalFailed(None, "another file system is mounted in it")
            lifted = self._emptied(here, top)
        finally:
            os.close(here)
        os.rmdir(name, dir_fd=top)
        return lifted

    def _emptied(self, here: int, top: int) -> list[str]:
        """Unlink what is in *here*; return the names in *top* of the directories it had."""
        lifted: list[str] = []
        while True:  # a directory that is changed while it is read may skip entries
            directories = self._unlink_all(here)
            if here == top:
                return directories
            lifted += [self._lift(name, here, top) for name in directories]
            if not directories:
                return lifted

    def _unlink_all(self, here: int) -> list[str]:
        """Unlink until only directories are left in *here*; return their names."""
        while True:
            directories, unlinked = [], 0
            with os.scandir(here) as entries:
                for entry in entries:
                    self._check()
                    if entry.is_dir(follow_symlinks=False) or not _unlinked(entry.name, here):
                        directories.append(entry.name)
                    else:
                        unlinked += 1
            if not unlinked:
                return directories

    def _lift(self, name: str, here: int, top: int) -> str:
        self._count += 1
        lifted = f"{self._lifted}{self._count}"
        # Its owner may only move a directory it may write: the entry `..` changes.
        os.close(_open_writable(name, here))
        os.rename(name, lifted, src_dir_fd=here, dst_dir_fd=top)
        return lifted

    def _check(self) -> None:
        if self._stop.is_set():
            raise RemovalFailed(None, "stopped")
        if time.monotonic() > self._deadline:
            raise RemovalFailed(None, "it takes too long")


def _open_writable(name: str, parent: int) -> int:
    fd = open_directory(name, parent)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(PermissionError):  # what really can't be removed will say so
            os.fchmod(fd, mode | stat.S_IRWXU)
    return fd


def _unlinked(name: str, parent: int) -> bool:
    """Unlink *name* in *parent* unless it is a directory; whether it is gone."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        return False  # POSIX lets systems say EPERM for a directory
    return True
