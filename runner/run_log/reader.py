"""Reading a run's log: from any event on, then live, to its end."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.contract.problems import NotFound
from runner.run_log.lines import offset_after
from runner.run_log.meta import EVENTS_FILE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from runner.run_log.log import RunLog

_CHUNK_BYTES = 1 << 18
_READ_IN_PLACE_BYTES = 1 << 16
"""So much comes from the page cache at once; more is read in a thread."""


class LogReader:
    """One reader of one log. Use `open_reader`."""

    def __init__(self, log: RunLog, fd: int) -> None:
        self._log = log
        self._fd = fd

    async def follow(self, *, after: int | None, heartbeat_s: float) -> AsyncGenerator[bytes, None]:
        """Yield the log's bytes behind event *after* (None: all), then what comes, to the end.

        Pieces may end inside a line. An empty one says that nothing came for *heartbeat_s*; it
        comes between lines only.
        """
        log, offset = self._log, 0
        if after is not None:
            offset = await asyncio.to_thread(offset_after, self._fd, log.size, after)
        while True:
            if (left := log.size - offset) > 0:
                data = await self._read(min(left, _CHUNK_BYTES), offset)
                offset += len(data)
                yield data
            elif log.has_ended:
                if log.unwritten_end:
                    yield log.unwritten_end
                return
            elif not await log.changed(heartbeat_s):
                yield b""

    async def _read(self, length: int, offset: int) -> bytes:
        if length <= _READ_IN_PLACE_BYTES:
            return os.pread(self._fd, length, offset)
        return await asyncio.to_thread(os.pread, self._fd, length, offset)


@contextmanager
def open_reader(log: RunLog) -> Iterator[LogReader]:
    """Yield a reader of *log*; it can read on even if the log is swept meanwhile.

    Raises:
        NotFound: The log has just been swept.
    """
    try:
        fd = os.open(log.directory / EVENTS_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise NotFound from exc
    try:
        yield LogReader(log, fd)
    finally:
        os.close(fd)
