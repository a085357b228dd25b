"""What still has to be told, kept on disk: in order, and after `kill -9` too.

Each process appends to a file of its own, which it holds a lock on. A file whose lock is free
belongs to a process that is gone: whoever finds it takes it over.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SUFFIX = ".ndjson"
_INTENT = ".asked"


class SpoolUnwritable(ValueError):
    """The spool can't be written where it shall be; the text says why."""


class Spool:
    """Entries in a file: appended at its end, read from its beginning, gone when all are read.

    An entry that was read may be read again after a crash.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._read_to = 0

    @classmethod
    def create(cls, directory: Path) -> Spool:
        """Begin a file in *directory*.

        Raises:
            SpoolUnwritable: It can't be written there.
        """
        name = secrets.token_hex(8)
        draft = directory / f"{name}.new"
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            # Under its own name only once it is locked: else it would look like a dead process's.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(fd, draft.rename(directory / f"{name}{_SUFFIX}"))
        except OSError as exc:
            raise SpoolUnwritable(f"{directory} can't be written: {exc.strerror}") from exc

    @classmethod
    def take_over(cls, directory: Path) -> Iterator[Spool]:
        """Yield the spools that processes left behind, oldest first; they are the caller's now."""
        for path in sorted(directory.glob(f"*{_SUFFIX}"), key=_changed_at):
            with suppress(OSError):  # held, or taken over by another
                fd = os.open(path, os.O_RDWR | os.O_APPEND)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(fd).st_nlink == 0:
                        raise FileNotFoundError
                except OSError:
                    os.close(fd)
                    raise
                log.info("spool_taken_over", bytes=os.fstat(fd).st_size)
                yield cls(fd, path)

    def append(self, entry: dict[str, Any]) -> None:
        """Keep *entry*; once this returns, a crash of this process does not lose it.

        Raises:
            OSError: The disk does not take it; nothing was written.
        """
        data = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        if os.write(self._fd, data) < len(data):
            os.ftruncate(self._fd, size)
            raise OSError("the disk is full")

    def first(self) -> dict[str, Any] | None:
        """Return the oldest entry that is not done; None if all are."""
        while True:
            line = self._line()
            if not line.endswith(b"\n"):  # nothing, or cut off in the middle
                return None
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    return entry
            log.warning("spool_line_unreadable", bytes=len(line))
            self._read_to += len(line)

    def done(self) -> None:
        """Take note that the first entry needs to be told no more."""
        self._read_to += len(self._line())
        if self._read_to == os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, 0)
            self._read_to = 0

    def close(self) -> None:
        """Let go of the file; with nothing left in it, it goes."""
        if self.first() is None:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)

    def _line(self) -> bytes:
        with os.fdopen(os.dup(self._fd), "rb", buffering=1 << 16) as file:
            file.seek(self._read_to)
            return file.readline()


class Duty:
    """What one process does for all that share a directory: the first of them, then another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    def is_ours(self) -> bool:
        """Return whether it falls to us; once it does, it stays so until `leave`."""
        if self._fd is None:
            with suppress(OSError):
                fd = os.open(self._directory, os.O_RDONLY)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(fd)
                else:
                    self._fd = fd
        return self._fd is not None

    def leave(self) -> None:
        """Let another one have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Intents:
    """What is being asked of the runner right now: a file each, until its answer is known.

    One that stays tells of a run that may have begun without anybody having written it down: the
    answer got lost, or the process that asked.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, run_id: str, fields: dict[str, Any]) -> None:
        """Keep that a run is asked for.

        Raises:
            OSError: The disk does not take it.
        """
        fd = os.open(self._path(run_id), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(fields, ensure_ascii=False).encode())

    def drop(self, run_id: str) -> None:
        """Take note that what became of it is known."""
        with suppress(OSError):
            self._path(run_id).unlink(missing_ok=True)

    def older_than(self, age_s: float) -> dict[str, dict[str, Any]]:
        """Return the fields of those nobody can be waiting for any more, by run."""
        found: dict[str, dict[str, Any]] = {}
        for path in self._directory.glob(f"*{_INTENT}"):
            if time.time() - _changed_at(path) < age_s:
                continue
            fields: Any = None
            with suppress(OSError, ValueError):
                fields = json.loads(path.read_bytes())
            if isinstance(fields, dict):
                found[path.stem] = fields
            else:  # cut off in the middle: then nothing had been asked yet
                self.drop(path.stem)
        return found

    def _path(self, run_id: str) -> Path:
        return self._directory / f"{run_id}{_INTENT}"


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
