"""The queue is fair, whatever comes and goes."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from runner.scheduler.queue import FairQueue

SUBJECTS = st.sampled_from("abcd")


def drained(queue: FairQueue[int]) -> list[int]:
    """Take everything there is."""
    taken = []
    while (item := queue.take(lambda _: True)) is not None:
        taken.append(item)
    return taken


@given(st.lists(SUBJECTS, max_size=60))
def test_nobody_waits_for_more_than_one_turn_of_each_other(arrivals: list[str]) -> None:
    """Before a subject's n-th item, no other subject has had more than n."""
    queue: FairQueue[int] = FairQueue()
    for number, subject in enumerate(arrivals):
        queue.add(subject, number)
    turns: dict[str, int] = defaultdict(int)

    for number in drained(queue):
        subject = arrivals[number]
        turns[subject] += 1
        assert all(count <= turns[subject] for count in turns.values())


@given(st.lists(SUBJECTS, max_size=60))
def test_a_subjects_own_items_keep_their_order_and_none_is_lost(arrivals: list[str]) -> None:
    """First come, first served within one subject."""
    queue: FairQueue[int] = FairQueue()
    for number, subject in enumerate(arrivals):
        queue.add(subject, number)
    announced = list(queue.in_order())

    taken = drained(queue)

    assert taken == announced
    assert sorted(taken) == list(range(len(arrivals)))
    for subject in set(arrivals):
        own = [number for number in taken if arrivals[number] == subject]
        assert own == sorted(own)
    assert len(queue) == 0


@given(st.lists(SUBJECTS, min_size=1, max_size=30), st.data())
def test_who_leaves_is_forgotten(arrivals: list[str], data: st.DataObject) -> None:
    """Others move up, in their order."""
    queue: FairQueue[int] = FairQueue()
    for number, subject in enumerate(arrivals):
        queue.add(subject, number)
    leaver = data.draw(st.integers(0, len(arrivals) - 1))

    queue.discard(arrivals[leaver], leaver)

    assert sorted(drained(queue)) == [n for n in range(len(arrivals)) if n != leaver]


def test_a_newcomer_waits_at_most_one_turn_behind_a_hundred_prompts() -> None:
    """The lone prompt of another user is served second at the latest."""
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.add("busy", f"busy-{number}")
    queue.add("lone", "lone")

    assert "lone" in drained_texts(queue)[:2]


def drained_texts(queue: FairQueue[str]) -> list[str]:
    """Take everything there is."""
    taken = []
    while (item := queue.take(lambda _: True)) is not None:
        taken.append(item)
    return taken


def test_who_may_not_run_is_passed_over_and_keeps_the_turn() -> None:
    """A user at the running limit delays nobody."""
    queue: FairQueue[str] = FairQueue()
    queue.add("a", "a1")
    queue.add("b", "b1")

    assert queue.take(lambda subject: subject != "a") == "b1"
    assert queue.take(lambda subject: subject != "a") is None
    assert queue.take(lambda _: True) == "a1"
