"""What a full queue promises is kept, whatever the load is like; and costs nobody much."""

from __future__ import annotations

import heapq
import itertools
import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.problems import QueueFull
from runner.scheduler.pace import Pace
from runner.scheduler.promises import Promises
from runner.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.scheduler.scheduler import Ticket

    Duration = Callable[[random.Random], float]

DURATIONS: dict[str, tuple[Duration, float]] = {
    "all alike": (lambda _: 5.0, 5.0),
    "evenly spread": (lambda chance: chance.uniform(1, 9), 5.0),
    "exponential": (lambda chance: chance.expovariate(1 / 8), 8.0),
    "short and long": (lambda chance: chance.choice([1.0, 1.0, 1.0, 37.0]), 10.0),
    "heavy tail": (lambda chance: min(300.0, chance.lognormvariate(1.5, 1.2)), 9.0),
}
SLOTS, QUEUE_SIZE = 10, 20


@dataclass(kw_only=True)
class Load:
    """More runs than the slots carry, for a while, in a time of its own.

    Attributes:
        times: How many times as many.
        loyal: Which share of those who are refused comes again, half a second late at most.
        same_request: Whether they ask for the same then.
        kept, broken: How it went for those, once the beginning was over.
        busy_s: What slots worked while callers came.
    """

    duration: Duration
    mean_s: float
    times: float = 1.2
    loyal: float = 1.0
    users: int = 1000
    callers: int = 1000
    same_request: bool = True
    kept: int = 0
    broken: int = 0
    busy_s: float = 0.0
    _waiting: dict[Ticket, ExitStack] = field(default_factory=dict)
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _now: float = 0.0

    def __post_init__(self) -> None:
        """Plan all arrivals."""
        self._chance = random.Random(1)
        self._scheduler = Scheduler(
            slots=SLOTS, queue_size=QUEUE_SIZE, per_subject=2, now=lambda: self._now
        )
        at = 0.0
        for number in range(self.callers):
            at += self._chance.expovariate(self.times * SLOTS / self.mean_s)
            self._plan(at, partial(self._come, f"user{number % self.users}", str(number)))
        self.length_s = at

    def run(self) -> Load:
        """Have it all happen."""
        while self._agenda:
            self._now, _, happen = heapq.heappop(self._agenda)
            happen()
            for ticket in [ticket for ticket in self._waiting if ticket.has_slot]:
                self._begin(self._waiting.pop(ticket))
        return self

    def _plan(self, at: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at, next(self._order), happen))

    def _come(self, who: str, request: str, *, again: bool = False) -> None:
        stack = ExitStack()
        counts = again and self._now > 5 * self.mean_s
        try:
            self._waiting[stack.enter_context(self._scheduler.admission(who, request))] = stack
            self.kept += counts
        except QueueFull as refused:
            self.broken += counts
            if self._now < self.length_s and self._chance.random() < self.loyal:
                next_request = request if self.same_request else f"{request}+"
                back = self._now + (refused.retry_after_s or 0) + self._chance.uniform(0, 0.5)
                self._plan(back, partial(self._come, who, next_request, again=True))

    def _begin(self, stack: ExitStack) -> None:
        duration = self.duration(self._chance)
        self.busy_s += max(0.0, min(self._now + duration, self.length_s) - self._now)
        self._plan(self._now + duration, stack.close)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("users", [8, 1000])
@pytest.mark.parametrize("same_request", [True, False], ids=["the same", "another"])
def test_who_comes_when_told_gets_in(name: str, users: int, *, same_request: bool) -> None:
    """In nine of ten cases at least, however long runs take; and the slots stay busy."""
    duration, mean_s = DURATIONS[name]
    load = Load(duration=duration, mean_s=mean_s, users=users, same_request=same_request).run()

    assert load.kept > 100
    assert load.kept / (load.kept + load.broken) >= 0.9
    assert load.busy_s / (SLOTS * load.length_s) >= 0.85


@pytest.mark.parametrize("loyal", [0.0, 0.3])
def test_places_kept_for_those_who_stay_away_are_not_missed(loyal: float) -> None:
    """Most clients never come again; the slots stay busy all the same."""
    load = Load(duration=DURATIONS["exponential"][0], mean_s=8.0, times=1.5, loyal=loyal).run()

    assert load.busy_s / (SLOTS * load.length_s) >= 0.85
    assert load.broken <= load.kept / 9


def test_those_refused_together_are_told_different_times() -> None:
    """There is one place after the other, not one for all."""
    promises = Promises(Pace(slots=2), places=3)

    told = [promises.refuse(f"user{number}", "x", free=0, now=0.0) for number in range(20)]

    assert told == sorted(told)
    assert len(set(told)) > 10


def test_a_newcomer_does_not_get_what_was_promised() -> None:
    """The caller who was told to come now does."""
    promises = Promises(Pace(slots=2), places=3)
    due = promises.refuse("loyal", "x", free=0, now=0.0)

    assert not promises.admits("newcomer", "x", free=1, now=due)
    assert promises.admits("newcomer", "x", free=2, now=due)
    assert promises.admits("loyal", "x", free=1, now=due)
    assert promises.admits("newcomer", "x", free=1, now=due)


def test_who_comes_too_early_is_told_the_same_and_takes_nothing_from_others() -> None:
    """A client that asks every second has one promise, and uses it as soon as it can."""
    promises = Promises(Pace(slots=2), places=3)
    due = promises.refuse("hasty", "x", free=0, now=0.0)

    told = [promises.refuse("hasty", "x", free=0, now=float(now)) for now in range(1, due)]

    assert told == [due - now for now in range(1, due)]
    assert len(promises) == 1
    assert not promises.admits("newcomer", "x", free=1, now=due - 1)
    assert promises.admits("hasty", "x", free=1, now=due - 1)
    assert promises.admits("newcomer", "x", free=1, now=due - 1)


def test_a_promise_lapses() -> None:
    """Who doesn't come is not waited for."""
    promises = Promises(Pace(slots=2), places=3)
    due = promises.refuse("gone", "x", free=0, now=0.0)

    assert not promises.admits("newcomer", "x", free=1, now=due + 2)
    assert promises.admits("newcomer", "x", free=1, now=due + 10)
    assert len(promises) == 0


def test_who_is_refused_again_stays_ahead_of_the_others() -> None:
    """A promise that could not be kept is made up for first."""
    promises = Promises(Pace(slots=2), places=3)
    first_due = promises.refuse("first", "x", free=0, now=0.0)
    second_due = promises.refuse("second", "x", free=0, now=0.0)
    promises.refuse("third", "x", free=0, now=0.0)

    again = promises.refuse("first", "x", free=0, now=first_due)

    assert first_due + again <= second_due + again
    assert again <= promises.refuse("newcomer", "x", free=0, now=first_due)


def test_one_who_is_refused_a_hundred_times_keeps_nobody_else_away() -> None:
    """Others are told soon, each a time of their own, and get in then."""
    promises = Promises(Pace(slots=2), places=3)
    flood = [promises.refuse("many", str(number), free=0, now=0.0) for number in range(100)]

    told = [promises.refuse(name, "x", free=0, now=0.0) for name in "abc"]

    assert told == sorted(set(told))
    assert max(told) < flood[10]
    assert promises.admits("a", "x", free=1, now=told[0])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=3000))
def test_what_is_remembered_is_bounded(calls: list[tuple[str, float]]) -> None:
    """However many are refused, however often."""
    promises, now = Promises(Pace(slots=2), places=3), 0.0
    for subject, later_s in calls:
        now += later_s
        if not promises.admits(subject, "x", free=0, now=now):
            assert 1 <= promises.refuse(subject, "x", free=0, now=now) <= 3600
    assert len(promises) <= 3 * 100


@given(st.lists(st.floats(0, 1000), max_size=200), st.integers(1, 50))
def test_more_places_take_longer(gaps: list[float], count: int) -> None:
    """A forecast never shrinks with what it is asked for."""
    pace, now = Pace(slots=2), 0.0
    pace.watch(now, full=True)
    for gap in gaps:
        now += gap
        pace.freed(now)

    assert 0 < pace.time_for(count, now) <= pace.time_for(count + 1, now)
