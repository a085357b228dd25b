"""What a killed runner's log is made into: whole lines, ended. Blocking."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from runner.contract import events
from runner.contract.messages import sentence
from runner.contract.wire import decode_event, encode_event
from runner.run_log.lines import last_line_start
from runner.run_log.meta import EVENTS_FILE, write_meta
from runner.run_log.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from runner.contract.events import RunEvent
    from runner.run_log.meta import RunMeta

_CODE = "runner-restarted"
_USAGE = b'"usage.updated"'


def recover(directory: Path, meta: RunMeta) -> tuple[RunMeta, int, bool]:
    """Mend the log in *directory*; return its meta data, its size, and whether it had ended.

    A torn last line is cut off. A log without a terminal event gets `runner-restarted`.

    Raises:
        OSError: There are no events, or they can't be written.
    """
    fd = os.open(directory / EVENTS_FILE, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        told = os.fstat(fd)
        size, last = _last_event(fd, told.st_size)
        used = _last_usage(fd, size)
        if size < told.st_size:
            os.ftruncate(fd, size)
        had_ended = isinstance(last, events.Terminal)
        if last is None or not had_ended:
            last = events.RunFailed(
                seq=0 if last is None else last.seq + 1,
                code=_CODE,
                message=sentence(_CODE, meta.language),
            )
            size += os.write(fd, encode_event(last))
    finally:
        os.close(fd)
    if not had_ended or meta.state.ended_at is None:
        progress = Progress(meta.state)
        if used is not None:
            progress.take(used, datetime.fromtimestamp(told.st_mtime, UTC))
        progress.take(last, datetime.fromtimestamp(told.st_mtime, UTC))
        meta = meta.model_copy(update={"state": progress.state})
        write_meta(directory, meta)
    return meta, size, had_ended


def _last_usage(fd: int, end: int) -> events.UsageUpdated | None:
    """Return what the run was last told to have used: it is paid for, though the run died."""
    if not end:
        return None
    with mmap.mmap(fd, end, prot=mmap.PROT_READ) as lines:
        while (found := lines.rfind(_USAGE, 0, end)) >= 0:
            start = lines.rfind(b"\n", 0, found) + 1
            with suppress(ValidationError):
                event = decode_event(lines[start : lines.find(b"\n", found)])
                if isinstance(event, events.UsageUpdated):
                    return event
            end = start  # a tool's input that looks like it
    return None


def _last_event(fd: int, size: int) -> tuple[int, RunEvent | None]:
    """Return the last event and where it ends; behind it there is no whole line."""
    end = last_line_start(fd, size + 1)
    while end:
        start = last_line_start(fd, end)
        try:
            return end, decode_event(os.pread(fd, end - start, start))
        except ValidationError:  # a machine that lost power may leave worse than a torn line
            end = start
    return 0, None
