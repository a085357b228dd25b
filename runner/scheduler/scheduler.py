"""Admission: a bounded number of slots, a bounded and fair queue before them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.contract.problems import QueueFull
from runner.scheduler.pace import Pace
from runner.scheduler.promises import Promises
from runner.scheduler.queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Ticket:
    """One admitted run: it waits for a slot or holds one."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._position: int | None = 0
        self._changed = asyncio.Event()

    @property
    def has_slot(self) -> bool:
        """Whether it need not wait any more."""
        return self._position is None

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
        self._running: dict[Ticket, None] = {}  # in the order they began
        self._of_subject: Counter[str] = Counter()
        self._pace = Pace(slots=slots)
        self._promises = Promises(self._pace, places=slots + queue_size)

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many tickets wait."""
        return len(self._queue)

    @contextmanager
    def admission(self, subject: str, request: str = "") -> Iterator[Ticket]:
        """Admit a run of *subject*; leaving the block gives back its slot or its place.

        Args:
            subject: Whose run.
            request: What is asked for: the same again, after a refusal, is the same caller.

        Raises:
            QueueFull: What is free is promised to others, if anything is; says when to come again.
        """
        if (retry_after_s := self._refused_for_s(subject, request)) is not None:
            raise QueueFull(retry_after_s=retry_after_s)
        ticket = Ticket(subject)
        self._queue.add(subject, ticket)
        self._hand_out()
        self._watch_pace()
        try:
            yield ticket
        finally:
            self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        waiting = self.waiting
        if ticket.has_slot:
            del self._running[ticket]
            self._of_subject -= Counter([ticket.subject])
        else:
            self._queue.discard(ticket.subject, ticket)
        self._hand_out()
        if not self.waiting or self.waiting < waiting:
            self._pace.freed(self._now())
        self._watch_pace()

    def _watch_pace(self) -> None:
        self._pace.watch(self._now(), full=self.waiting > 0 or self._is_somebody_refused)

    @property
    def _is_somebody_refused(self) -> bool:
        """Whether somebody, while nobody waits, could not have a place."""
        at_limit = any(count >= self._per_subject for count in self._of_subject.values())
        return self.running >= self.slots or (self.queue_size == 0 and at_limit)

    def _refused_for_s(self, subject: str, request: str) -> int | None:
        """Return when *subject* will most likely be admitted; None: now."""
        free, now = self._free_for(subject), self._now()
        if self._promises.admits(subject, request, free=free, now=now):
            return None
        idle = self.slots - self.running
        if self._may_run(subject) and (idle == self.slots or idle > math.isqrt(self.slots)):
            return None  # to keep so many slots empty for others would be a waste
        return self._promises.refuse(subject, request, free=free, now=now)

    def _free_for(self, subject: str) -> int:
        """Return how many places *subject* could have now."""
        free = self.queue_size - self.waiting
        return free + self.slots - self.running if self._may_run(subject) else free

    def _may_run(self, subject: str) -> bool:
        return self.running < self.slots and self._of_subject[subject] < self._per_subject

    def _hand_out(self) -> None:
        while (turn := self._queue.take(self._may_run)) is not None:
            subject, ticket = turn
            self._running[ticket] = None
            self._of_subject[subject] += 1
            ticket.move_to(None)
        going = [ticket.subject for ticket in self._running]
        waiting = self._queue.in_turn(going, slots=self.slots, per_subject=self._per_subject)
        for position, ticket in enumerate(waiting, start=1):
            ticket.move_to(position)
