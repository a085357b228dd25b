"""All runs' logs: `DATA_DIR/runs/<run id>/`, made, found again after a restart, swept."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from runner.contract.requests import RUN_ID_PATTERN
from runner.plumbing.cleanup import finish
from runner.run_log.log import RunLog
from runner.run_log.meta import EVENTS_FILE, read_meta, write_meta
from runner.run_log.recovery import recover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator
    from pathlib import Path

    from runner.run_log.meta import RunMeta

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SWEEP_S = (1.0, 60.0)
_FIRST_SWEEP_S = 300.0
"""So long after a start, gateways have asked how the runs of before it have ended."""
_IDEMPOTENT_FOR = timedelta(days=1)


def _now() -> datetime:
    return datetime.now(UTC)


class RunLogs:
    """Makes, finds and forgets logs. Use `open_run_logs`, which also recovers and sweeps."""

    def __init__(
        self,
        parent: Path,
        *,
        limit_bytes: int,
        retention_s: float,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._parent = parent
        self._limit_bytes = limit_bytes
        self._retention = timedelta(seconds=retention_s)
        self._now = now
        self._logs: dict[str, RunLog] = {}
        self._by_key: dict[tuple[str, str], str] = {}

    def create(self, meta: RunMeta) -> RunLog:
        """Return a new, empty log.

        Raises:
            OSError: It can't be written, or there is one of that id.
        """
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = self._parent / meta.state.run_id
        directory.mkdir(mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd: int | None = None
        try:
            fd = os.open(directory / EVENTS_FILE, flags, 0o600)
            write_meta(directory, meta)  # last: what has it, is whole
        except OSError:
            if fd is not None:
                os.close(fd)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return self._add(
            RunLog(directory, meta, limit_bytes=self._limit_bytes, now=self._now, fd=fd)
        )

    def get(self, run_id: str) -> RunLog | None:
        """Return the log of *run_id*, if it is still kept."""
        return self._logs.get(run_id)

    def of_key(self, subject: str, idempotency: str) -> RunLog | None:
        """Return the log of *subject*'s run with that idempotency hash, at most a day old."""
        found = self._logs.get(self._by_key.get((subject, idempotency), ""))
        if found is None:
            return None
        accepted = datetime.fromisoformat(found.state.created_at)
        return found if self._now() - accepted < _IDEMPOTENT_FOR else None

    def find(
        self, *, subject: str | None = None, run_ids: Collection[str] | None = None
    ) -> list[RunLog]:
        """Return logs, newest first; None means: don't choose by that."""
        chosen = (
            self._logs.values()
            if run_ids is None
            else [self._logs[run_id] for run_id in run_ids if run_id in self._logs]
        )
        if subject is not None:
            chosen = [known for known in chosen if known.meta.state.subject == subject]
        return sorted(chosen, key=lambda known: known.meta.state.created_at, reverse=True)

    async def recover(self) -> int:
        """Read what an earlier runner left; return how many runs died with it."""
        found = await asyncio.to_thread(self._recover)
        died = 0
        for directory, meta, size, had_ended in found:
            died += not had_ended
            self._add(
                RunLog(directory, meta, limit_bytes=self._limit_bytes, now=self._now, size=size)
            )
        return died

    async def sweep(self) -> int:
        """Remove the logs of runs that ended longer ago than is kept; return how many."""
        oldest = self._now() - self._retention
        old = [known for known in self._logs.values() if _ended_before(known, oldest)]
        for known in old:
            self._remove(known)
            await asyncio.to_thread(shutil.rmtree, known.directory, ignore_errors=True)
        return len(old)

    def _add(self, known: RunLog) -> RunLog:
        meta = known.meta
        self._logs[meta.state.run_id] = known
        if meta.idempotency is not None:
            self._by_key[meta.state.subject, meta.idempotency] = meta.state.run_id
        return known

    def _remove(self, known: RunLog) -> None:
        meta = known.meta
        del self._logs[meta.state.run_id]
        key = (meta.state.subject, meta.idempotency or "")
        if self._by_key.get(key) == meta.state.run_id:
            del self._by_key[key]

    def _recover(self) -> list[tuple[Path, RunMeta, int, bool]]:
        if not self._parent.is_dir():
            return []
        found = []
        for directory in sorted(self._parent.iterdir(), key=_age):
            if not re.fullmatch(RUN_ID_PATTERN, directory.name):
                continue
            meta = read_meta(directory)
            recovered = None
            if meta is not None and meta.state.run_id == directory.name:
                with suppress(OSError):
                    recovered = recover(directory, meta)
            if recovered is None:  # killed while it was made or removed
                shutil.rmtree(directory, ignore_errors=True)
                continue
            found.append((directory, *recovered))
        return found


@asynccontextmanager
async def open_run_logs(
    parent: Path, *, limit_bytes: int, retention_s: float
) -> AsyncIterator[RunLogs]:
    """Yield the logs below *parent*, those of an earlier runner included; sweep meanwhile."""
    with _at_work_in(parent):
        async with _swept(parent, limit_bytes=limit_bytes, retention_s=retention_s) as logs:
            yield logs


@contextmanager
def _at_work_in(parent: Path) -> Iterator[None]:
    """Hold a lock on *parent* that tells a restore that a runner works here."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def _swept(parent: Path, *, limit_bytes: int, retention_s: float) -> AsyncIterator[RunLogs]:
    logs = RunLogs(parent, limit_bytes=limit_bytes, retention_s=retention_s)
    died = await logs.recover()
    log.info("run_logs_recovered", died=died)
    sweeping = asyncio.create_task(_keep_sweeping(logs, retention_s))
    try:
        yield logs
    finally:
        sweeping.cancel()
        await finish(_settled(sweeping))


async def _keep_sweeping(logs: RunLogs, retention_s: float) -> None:
    low, high = _SWEEP_S
    await asyncio.sleep(min(_FIRST_SWEEP_S, retention_s))
    while True:
        await logs.sweep()
        await asyncio.sleep(min(high, max(low, retention_s / 4)))


async def _settled(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task}, timeout=5)


def _ended_before(known: RunLog, moment: datetime) -> bool:
    ended_at = known.state.ended_at
    return ended_at is not None and datetime.fromisoformat(ended_at) < moment


def _age(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:
        return 0.0
