"""Slots and places are bounded, given back, and never counted twice."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.problems import QueueFull
from runner.scheduler.scheduler import Scheduler, Ticket


def scheduler(*, slots: int = 2, queue_size: int = 2, per_subject: int = 2) -> Scheduler:
    return Scheduler(slots=slots, queue_size=queue_size, per_subject=per_subject)


async def positions(ticket: Ticket) -> list[int]:
    """Return the positions a ticket tells until it has a slot."""
    async with asyncio.timeout(5):
        return [position async for position in ticket.positions()]


async def test_a_free_slot_is_had_at_once() -> None:
    """No position is told to who does not wait."""
    with scheduler().admission("a") as ticket:
        assert await positions(ticket) == []


async def test_positions_are_told_as_they_change() -> None:
    """From 2 to 1 to a slot, as those ahead end."""
    one = scheduler(slots=1)
    with one.admission("a"), ExitStack() as ahead:
        ahead.enter_context(one.admission("b"))
        with one.admission("c") as last:
            told = last.positions()
            assert await anext(told) == 2
            ahead.close()
            assert await anext(told) == 1


async def test_a_position_is_told_once() -> None:
    """Nothing is told again until it has changed."""
    one = scheduler(slots=1)
    with one.admission("a"), one.admission("b") as waiting:
        told = waiting.positions()
        assert await anext(told) == 1
        again = asyncio.ensure_future(anext(told, None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not again.done()
        again.cancel()


async def test_the_next_gets_the_slot_when_one_ends() -> None:
    """Leaving the block is giving the slot back."""
    one = scheduler(slots=1)
    with ExitStack() as first:
        first.enter_context(one.admission("a"))
        with one.admission("b") as second:
            waiting = asyncio.create_task(positions(second))
            first.close()
            assert (await waiting) in ([], [1])
            assert (one.running, one.waiting) == (1, 0)
    assert (one.running, one.waiting) == (0, 0)


async def test_more_than_the_queue_holds_is_refused_with_a_time_to_come_again() -> None:
    """And who has a slot or a place is not disturbed."""
    small = scheduler(slots=1, queue_size=1)
    with small.admission("a"), small.admission("b"):
        with pytest.raises(QueueFull) as refused, small.admission("c"):
            pass
        assert refused.value.retry_after_s
        assert refused.value.retry_after_s > 0
        assert (small.running, small.waiting) == (1, 1)


async def test_a_lone_user_at_the_limit_is_told_by_how_long_runs_take() -> None:
    """Also without a queue, where nobody ever waits and slots stay empty."""
    now = 0.0
    one = Scheduler(slots=2, queue_size=0, per_subject=1, now=lambda: now)
    for _run in range(10):
        with one.admission("a"):
            now += 0.5
    with one.admission("a"), pytest.raises(QueueFull) as refused, one.admission("a"):
        pass
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s <= 2


async def test_nothing_is_kept_for_others_where_nothing_runs() -> None:
    """Who was told to come later, and nobody else, would be waited for."""
    small = scheduler(slots=1, queue_size=0)
    with small.admission("a"), pytest.raises(QueueFull), small.admission("b"):
        pass
    with small.admission("c") as ticket:
        assert ticket.has_slot


async def test_one_user_never_has_more_than_their_share_of_slots() -> None:
    """More of the same user wait although slots are free; others don't."""
    shared = scheduler(slots=3, per_subject=1)
    with shared.admission("a"), shared.admission("a"), shared.admission("b") as other:
        assert await positions(other) == []
        assert (shared.running, shared.waiting) == (2, 1)


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["comes", "ends", "leaves"])), max_size=60
)


class Crowd:
    """Callers of a scheduler, who come, run and leave.

    Attributes:
        waiting: In the order they came.
        running: In the order they began.
    """

    def __init__(self, bounded: Scheduler) -> None:
        self.scheduler = bounded
        self.waiting: list[Ticket] = []
        self.running: list[Ticket] = []
        self._held: dict[Ticket, ExitStack] = {}

    def step(self, subject: str, what: str) -> None:
        """Have one of *subject* come, or one of theirs end or leave."""
        if what == "comes":
            stack = ExitStack()
            with suppress(QueueFull):
                ticket = stack.enter_context(self.scheduler.admission(subject))
                self._held[ticket] = stack
                self.waiting.append(ticket)
        else:
            there = self.running if what == "ends" else self.waiting
            if own := [ticket for ticket in there if ticket.subject == subject]:
                self.leave(own[0])
        self._look()

    def leave(self, ticket: Ticket) -> None:
        """Have *ticket* end, or not wait any more."""
        self._held.pop(ticket).close()
        (self.running if ticket in self.running else self.waiting).remove(ticket)
        self._look()

    def _look(self) -> None:
        self.running += [ticket for ticket in self.waiting if ticket.has_slot]
        self.waiting = [ticket for ticket in self.waiting if not ticket.has_slot]

    def running_of(self, subject: str) -> int:
        """Return how many runs *subject* has."""
        return sum(ticket.subject == subject for ticket in self.running)


@given(STEPS)
def test_bounds_hold_whatever_comes_and_goes(steps: list[tuple[str, str]]) -> None:
    """In all, of one user, of those who wait; and nothing stays behind."""
    crowd = Crowd(scheduler(slots=3, queue_size=4, per_subject=2))
    for subject, what in steps:
        crowd.step(subject, what)
        assert len(crowd.running) == crowd.scheduler.running <= 3
        assert len(crowd.waiting) == crowd.scheduler.waiting <= 4
        assert all(crowd.running_of(one) <= 2 for one in "abc")
    while crowd.running or crowd.waiting:
        crowd.leave((crowd.waiting or crowd.running)[0])
    assert (crowd.scheduler.running, crowd.scheduler.waiting) == (0, 0)


@given(STEPS)
def test_no_slot_is_empty_while_somebody_may_have_it(steps: list[tuple[str, str]]) -> None:
    """Who waits waits for a slot, or for a run of their own."""
    crowd = Crowd(scheduler(slots=3, queue_size=9, per_subject=2))
    for subject, what in steps:
        crowd.step(subject, what)
        if len(crowd.running) < 3:
            assert all(crowd.running_of(ticket.subject) == 2 for ticket in crowd.waiting)


@given(STEPS)
async def test_positions_say_who_is_next(steps: list[tuple[str, str]]) -> None:
    """If runs end in the order they began, slots are had in the order of the positions."""
    crowd = Crowd(scheduler(slots=2, queue_size=9, per_subject=1))
    for subject, what in steps:
        crowd.step(subject, what)
    told = {await anext(ticket.positions()): ticket for ticket in crowd.waiting}
    assert sorted(told) == list(range(1, len(told) + 1))

    order: list[Ticket] = []
    while crowd.running:
        before = set(crowd.running)
        crowd.leave(crowd.running[0])
        order += [ticket for ticket in crowd.running if ticket not in before]
    assert order == [told[number] for number in sorted(told)]


async def test_a_lone_prompt_waits_for_one_run_at_most() -> None:
    """Behind another user's hundred, with a single slot: until the run that goes on has ended."""
    one = scheduler(slots=1, queue_size=200, per_subject=1)
    with ExitStack() as going, ExitStack() as crowd:
        going.enter_context(one.admission("busy"))
        for _ in range(99):
            crowd.enter_context(one.admission("busy"))
        with one.admission("lone") as ticket:
            assert await anext(ticket.positions()) == 1
            going.close()
            assert ticket.has_slot
