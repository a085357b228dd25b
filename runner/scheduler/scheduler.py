"""Admission: a bounded number of slots, a bounded and fair queue before them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.contract.problems import QueueFull
from runner.scheduler.queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_REMEMBERED_ENDS = 32
_RETRY_AFTER_S = (1.0, 120.0)
_RETRY_AFTER_UNKNOWN_S = 10.0


class Ticket:
    """One admitted run: it waits for a slot or holds one."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._position: int | None = 0
        self._changed = asyncio.Event()

    def move_to(self, position: int | None) -> None:
        """Note the place in the queue, from 1; None means: has a slot."""
        if position != self._position:
            self._position = position
            self._changed.set()

    async def positions(self) -> AsyncIterator[int]:
        """Yield the position whenever it has changed, and end when there is a slot."""
        while self._position is not None:
            self._changed.clear()
            if self._position > 0:
                yield self._position
            await self._changed.wait()


class Scheduler:
    """Hands out slots."""

    def __init__(
        self,
        *,
        slots: int,
        queue_size: int,
        per_subject: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self.queue_size = queue_size
        self._per_subject = per_subject
        self._now = now
        self._queue: FairQueue[Ticket] = FairQueue()
        self._running: Counter[str] = Counter()
        self._ends: deque[float] = deque(maxlen=_REMEMBERED_ENDS)

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many tickets wait."""
        return len(self._queue)

    @contextmanager
    def admission(self, subject: str) -> Iterator[Ticket]:
        """Admit a run of *subject*; leaving the block gives back its slot or its place.

        Raises:
            QueueFull: Every slot and every place is taken; says when to come again.
        """
        ticket = Ticket(subject)
        if not self._may_run(subject) and self.waiting >= self.queue_size:
            raise QueueFull(retry_after_s=self._retry_after_s())
        self._queue.add(subject, ticket)
        self._hand_out()
        try:
            yield ticket
        finally:
            self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        if ticket._position is None:  # noqa: SLF001 - both halves of one thing
            self._running[ticket.subject] -= 1
            if not self._running[ticket.subject]:
                del self._running[ticket.subject]
            self._ends.append(self._now())
        else:
            self._queue.discard(ticket.subject, ticket)
        self._hand_out()

    def _may_run(self, subject: str) -> bool:
        return self.running < self.slots and self._running[subject] < self._per_subject

    def _hand_out(self) -> None:
        while (ticket := self._queue.take(self._may_run)) is not None:
            self._running[ticket.subject] += 1
            ticket.move_to(None)
        for position, waiting in enumerate(self._queue.in_order(), start=1):
            waiting.move_to(position)

    def _retry_after_s(self) -> float:
        """Return how long a place took to become free lately, on average."""
        if len(self._ends) < 2:  # noqa: PLR2004 - an interval has two ends
            return _RETRY_AFTER_UNKNOWN_S
        mean = (self._now() - self._ends[0]) / len(self._ends)
        low, high = _RETRY_AFTER_S
        return min(high, max(low, mean))
