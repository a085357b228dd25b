"""Slots and places are bounded, given back, and never counted twice."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

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


async def test_one_user_never_has_more_than_their_share_of_slots() -> None:
    """More of the same user wait although slots are free; others don't."""
    shared = scheduler(slots=3, per_subject=1)
    with shared.admission("a"), shared.admission("a"), shared.admission("b") as other:
        assert await positions(other) == []
        assert (shared.running, shared.waiting) == (2, 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_bounds_hold_whatever_comes_and_goes(steps: list[tuple[str, bool]]) -> None:
    """Never more than the slots run, never more than the places wait, nothing stays behind."""
    bounded = scheduler()
    held: dict[str, list[ExitStack]] = {"a": [], "b": [], "c": []}
    for subject, comes in steps:
        if comes:
            stack = ExitStack()
            try:
                stack.enter_context(bounded.admission(subject))
            except QueueFull:
                continue
            held[subject].append(stack)
        elif held[subject]:
            held[subject].pop(0).close()
        assert bounded.running <= 2
        assert bounded.waiting <= 2
    for stacks in held.values():
        for stack in stacks:
            stack.close()
    assert (bounded.running, bounded.waiting) == (0, 0)
