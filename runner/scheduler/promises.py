"""When to come again: what refused callers were promised, and whom that leaves room for. Pure.

Several callers who are refused in one second must not all be told the same: they would come back
at once, for one place. So they stand in a line that nobody sees: the n-th is told when the n-th
place will most likely be free. A promise is kept for its caller for some seconds after its time,
and then forgotten; callers without one get only what is not needed to keep those.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.scheduler.pace import Pace

_KEPT_S = 3.0
_LONGEST_S = 3600
_MAX_PROMISES = 1000
_MAX_OF_ONE = 100

_LEAD = 4
"""How many more one subject may have ahead of another: with fewer, promises are broken too often
where all ask about as much."""


@dataclass(frozen=True, order=True, slots=True)
class _Promise:
    """What one refused caller was told."""

    due: float
    number: int
    subject: str = field(compare=False)
    request: str = field(compare=False)


class Promises:
    """The line of those who were told when to come again.

    Args:
        pace: Says how fast places become free.
    """

    def __init__(self, pace: Pace, *, places: int) -> None:
        self._pace = pace
        self._places = places
        self._line: list[_Promise] = []
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._line)

    def admits(self, subject: str, request: str, *, free: int, now: float) -> bool:
        """Say whether *subject* may have one of *free* places; who has it waits no longer.

        Args:
            request: What is asked for; who asks for the same again is the same caller.
        """
        self._forget_lapsed(now)
        own = self._own(subject, request, now)
        is_due = own is not None and own.due <= now
        others = [promise for promise in self._line if promise is not own]
        if free <= 0 or not (is_due or self._can_spare_one(others, free, now)):
            return False
        self._line = others
        return True

    def refuse(self, subject: str, request: str, *, free: int, now: float) -> int:
        """Return in how many seconds *subject*, who was not admitted, will most likely be."""
        own = self._own(subject, request, now)
        if own is not None and own.due > now:  # came too early: nothing has changed
            return math.ceil(own.due - now)
        if own is not None:  # it took longer than expected: keeps its place
            count, last = self._line.index(own), None
            self._line.remove(own)
        else:
            ahead = self._ahead_of(subject)
            count, last = len(ahead), ahead[-1] if ahead else None
        seconds = self._pace.time_for(max(1, count + 1 - free), now)
        if last is not None:
            seconds = max(seconds, last.due - now + self._pace.apart_s(self._places))
        seconds = min(_LONGEST_S, max(1, math.ceil(seconds)))
        if len(self._line) < _MAX_PROMISES and self._count_of(subject) < _MAX_OF_ONE:
            self._last_number += 1
            insort(self._line, _Promise(now + seconds, self._last_number, subject, request))
        return seconds

    def _forget_lapsed(self, now: float) -> None:
        if self._line and self._line[0].due + _KEPT_S < now:
            self._line = [promise for promise in self._line if promise.due + _KEPT_S >= now]

    def _own(self, subject: str, request: str, now: float) -> _Promise | None:
        """Return what the caller was promised; else what is due to the same subject."""
        of_subject = [promise for promise in self._line if promise.subject == subject]
        same = (promise for promise in of_subject if promise.request == request)
        due = (promise for promise in of_subject if promise.due <= now)
        return next(same, None) or next(due, None)

    def _ahead_of(self, subject: str) -> list[_Promise]:
        """Return those whom one more of *subject* comes after.

        Of each subject only as many as it has itself, and a few: one that is refused a hundred
        times does not keep others away that long.
        """
        rounds = self._count_of(subject) + _LEAD
        seen: Counter[str] = Counter()
        ahead = []
        for promise in self._line:
            seen[promise.subject] += 1
            if seen[promise.subject] <= rounds:
                ahead.append(promise)
        return ahead

    def _count_of(self, subject: str) -> int:
        return sum(promise.subject == subject for promise in self._line)

    def _can_spare_one(self, line: list[_Promise], free: int, now: float) -> bool:
        """Say whether the promises in *line* can be kept though one place fewer is free."""
        return all(
            max(0.0, promise.due - now) >= self._pace.time_for(number + 1 - free, now)
            for number, promise in enumerate(line, start=1)
        )
