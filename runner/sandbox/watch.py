"""Looks after the limits of one running sandbox, and ends it at the first it runs into.

The kernel holds memory, processes and CPU by cgroup; then the watch only tells of it. What the
kernel doesn't hold without privileges, disk above all, the watch itself holds, several times a
second: a tenant may exceed it by what it can write in between.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.plumbing.cleanup import finish
from runner.sandbox import processes
from runner.sandbox.base import Verdict
from runner.sandbox.threads import in_thread
from runner.sandbox.trees import Stopped, measure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from runner.sandbox.base import Limits
    from runner.sandbox.cgroups import Counters

_INTERVAL_S = 0.25
# A look at the disk may take that share of one CPU at most.
_DISK_SHARE = 0.1
# A tree that is rearranged all the time can't be measured; that often in a row is no accident.
_MAX_MISSED = 20
_BYTES_PER_ENTRY = 4096  # as many files as a file system of that size would have


@dataclass(kw_only=True, slots=True)
class Watch:
    """One sandbox under watch.

    Attributes:
        directory: What it may write on disk is below.
        counters: Tells what the kernel counts for it.
        deleted_bytes: Tells what deleted files take that it holds; an `OSError` if that can't be
            seen.
        kill: Ends the sandbox; called in the event loop.
        pid: Its outermost process, where something is *watched*.
        watched: Limits that are the watch's own to hold: memory, processes.
    """

    directory: Path
    limits: Limits
    counters: Callable[[], Counters]
    deleted_bytes: Callable[[], int]
    kill: Callable[[], None]
    pid: int = 0
    watched: frozenset[str] = frozenset()
    _found: Verdict | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _disk_due: float = 0.0
    _missed: int = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            self._stop.set()
            await finish(_ended(task))

    async def verdict(self) -> Verdict | None:
        """Return the limit it ran into, if any."""
        if self._found is None:
            self._found = self._told_by_kernel()
        return self._found

    async def _watch(self) -> None:
        while not self._stop.is_set():
            found = await in_thread(self._look)
            self._found = self._found or found
            if self._found is not None:
                self.kill()
                return
            await asyncio.sleep(_INTERVAL_S)

    def _look(self) -> Verdict | None:
        return self._told_by_kernel() or self._look_at_processes() or self._look_at_disk()

    def _told_by_kernel(self) -> Verdict | None:
        counters = self.counters()
        if counters.oom_kills:
            return self._out_of_memory()
        if counters.refused_forks:
            return self._too_many_processes()
        return None

    def _look_at_processes(self) -> Verdict | None:
        if not self.watched:
            return None
        family = processes.descendants(self.pid)
        if "processes" in self.watched:
            threads = sum(member.threads for member in family)
            if threads >= self.limits.processes:
                return self._too_many_processes()
        if "memory" in self.watched:
            for size_of in (processes.private_bytes, processes.proportional_bytes):
                if sum(size_of(member.pid) for member in family) <= self.limits.memory_bytes:
                    return None
            return self._out_of_memory()
        return None

    def _look_at_disk(self) -> Verdict | None:
        begun = time.monotonic()
        if begun < self._disk_due:
            return None
        try:
            usage = measure(self.directory, stop=self._stop)
            self._missed = 0
            deleted = self.deleted_bytes()
        except Stopped:
            return None
        except OSError:
            # Not to be measured is no way to be let off.
            self._missed += 1
            return self._disk_full() if self._missed > _MAX_MISSED else None
        finally:
            now = time.monotonic()
            self._disk_due = now + (now - begun) / _DISK_SHARE
        if (
            usage.disk_bytes + deleted > self.limits.disk_bytes
            or usage.entries > self.limits.disk_bytes // _BYTES_PER_ENTRY
        ):
            return self._disk_full()
        return None

    def _disk_full(self) -> Verdict:
        return Verdict(code="disk-full", params={"limit_mb": self.limits.disk_bytes >> 20})

    def _out_of_memory(self) -> Verdict:
        return Verdict(code="out-of-memory", params={"limit_mb": self.limits.memory_bytes >> 20})

    def _too_many_processes(self) -> Verdict:
        return Verdict(code="too-many-processes", params={"limit": self.limits.processes})


async def _ended(task: asyncio.Task[None]) -> None:
    """Stop *task*; a look under way ends soon, as it sees that it is wanted no more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
