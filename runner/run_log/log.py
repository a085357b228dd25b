"""One run's events on disk: one writer, many readers, each at an offset of its own.

What is in the file is what readers get, byte for byte; the writer never waits for any of them.
One event is one line and one `write`, so that a process killed at any moment leaves whole lines
and at most one torn one at the end.

The log is bounded. Once an event doesn't fit, it and all that follow are left out, but for the
few that a reader can't do without; one `stream.gap` stands for them. The same happens while the
disk is full. A log always ends with its terminal event.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from runner.contract import events
from runner.contract.wire import encode_event
from runner.run_log.meta import write_meta
from runner.run_log.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from runner.contract.events import RunEvent
    from runner.contract.requests import RunState
    from runner.run_log.meta import RunMeta

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_ALWAYS_KEPT = (
    events.RunStarted,
    events.PermissionRequested,
    events.PermissionResolved,
    events.UsageUpdated,
    *(events.RunFinished, events.RunFailed, events.RunCancelled),
)
"""Few and small: they exceed the bound by some kilobytes at most."""


class RunLog:
    """The log of one run; made by `RunLogs`."""

    def __init__(
        self,
        directory: Path,
        meta: RunMeta,
        *,
        limit_bytes: int,
        now: Callable[[], datetime],
        size: int = 0,
        fd: int | None = None,
    ) -> None:
        self.directory = directory
        self._meta = meta
        self._limit_bytes = limit_bytes
        self._now = now
        self._size = size
        self._fd = fd
        self._progress = Progress(meta.state)
        self._next_seq = 0
        self._missing_from: int | None = None
        self._is_full = False
        self._unwritten_end = b""
        self._changed = asyncio.Event()

    @property
    def meta(self) -> RunMeta:
        """Whose run it is, and how far it has come."""
        return self._meta.model_copy(update={"state": self.state})

    @property
    def state(self) -> RunState:
        """How far the run has come."""
        return self._progress.state

    @property
    def size(self) -> int:
        """How many bytes are in the file; there a line ends."""
        return self._size

    @property
    def unwritten_end(self) -> bytes:
        """The last lines, where the disk had no room for them."""
        return self._unwritten_end

    @property
    def has_ended(self) -> bool:
        """Whether the terminal event is in."""
        return self._fd is None

    def got_slot(self) -> None:
        """Note that the run need not wait any more."""
        self._progress.got_slot(self._now())
        self._save_meta()

    def append(self, event: RunEvent) -> None:
        """Number *event* and write it; after a terminal event, do nothing."""
        if self._fd is None:
            return
        event = event.model_copy(update={"seq": self._next_seq})
        line = encode_event(event)
        is_terminal = isinstance(event, events.Terminal)
        if self._is_full or self._size + len(line) > self._limit_bytes:
            self._is_full = True
            kept = isinstance(event, _ALWAYS_KEPT) and self._write(self._fd, self._gap() + line)
        else:
            kept = self._write(self._fd, self._gap() + line)
        if kept:
            self._missing_from = None
        elif is_terminal:
            self._unwritten_end = self._gap() + line
        elif self._missing_from is None:
            self._missing_from = self._next_seq
        self._next_seq += 1
        self._progress.take(event, self._now())
        if is_terminal:
            self._close()
        if kept or is_terminal:
            self._changed.set()
            self._changed = asyncio.Event()

    async def changed(self, within_s: float) -> bool:
        """Wait until there is more than there was at the call, or the end; False: not in time."""
        change = self._changed
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await change.wait()
        return change.is_set()

    def _gap(self) -> bytes:
        if self._missing_from is None:
            return b""
        last = self._next_seq - 1
        return encode_event(events.StreamGap(seq=last, from_=self._missing_from, to=last))

    def _write(self, fd: int, data: bytes) -> bool:
        """Write all of *data* or none of it; say whether."""
        try:
            written = os.write(fd, data)
        except OSError as exc:
            log.warning("run_log_not_written", errno=exc.errno)
            return False
        if written < len(data):  # the disk is full
            with suppress(OSError):
                os.ftruncate(fd, self._size)
            return False
        self._size += written
        return True

    def _close(self) -> None:
        self._save_meta()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _save_meta(self) -> None:
        try:
            write_meta(self.directory, self.meta)
        except OSError as exc:  # recovery makes up for it
            log.warning("run_meta_not_written", errno=exc.errno)
