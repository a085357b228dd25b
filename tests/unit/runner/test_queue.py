"""The queue is fair, whatever comes and goes."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from runner.scheduler.queue import FairQueue

SUBJECTS = st.sampled_from("abcd")


def filled(arrivals: list[str]) -> FairQueue[int]:
    """Return a queue to which one after the other came."""
    queue: FairQueue[int] = FairQueue()
    for number, subject in enumerate(arrivals):
        queue.add(subject, number)
    return queue


def drained(queue: FairQueue[int]) -> list[int]:
    """Take everything there is."""
    taken = []
    while (turn := queue.take(lambda _: True)) is not None:
        taken.append(turn[1])
    return taken


@given(st.lists(SUBJECTS, max_size=60))
def test_nobody_waits_for_more_than_one_turn_of_each_other(arrivals: list[str]) -> None:
    """Before a subject's n-th item, no other subject has had more than n."""
    turns: dict[str, int] = defaultdict(int)

    for number in drained(filled(arrivals)):
        subject = arrivals[number]
        turns[subject] += 1
        assert all(count <= turns[subject] for count in turns.values())


@given(st.lists(SUBJECTS, max_size=60))
def test_a_subjects_own_items_keep_their_order_and_none_is_lost(arrivals: list[str]) -> None:
    """First come, first served within one subject."""
    queue = filled(arrivals)

    taken = drained(queue)

    assert sorted(taken) == list(range(len(arrivals)))
    for subject in set(arrivals):
        own = [number for number in taken if arrivals[number] == subject]
        assert own == sorted(own)
    assert len(queue) == 0


@given(st.lists(SUBJECTS, min_size=1, max_size=30), st.data())
def test_who_leaves_is_forgotten(arrivals: list[str], data: st.DataObject) -> None:
    """Others move up, in their order."""
    queue = filled(arrivals)
    leaver = data.draw(st.integers(0, len(arrivals) - 1))

    queue.discard(arrivals[leaver], leaver)

    assert sorted(drained(queue)) == [n for n in range(len(arrivals)) if n != leaver]


@given(st.lists(st.one_of(SUBJECTS, st.none()), max_size=80))
def test_the_one_served_longest_ago_is_next(steps: list[str | None]) -> None:
    """However they come in between, also those who come with each item anew."""
    queue: FairQueue[int] = FairQueue()
    waiting: list[str] = []
    served: dict[str, int] = {}
    for number, subject in enumerate(steps, start=1):
        if subject is not None:
            queue.add(subject, number)
            waiting.append(subject)
        elif waiting:
            turn = queue.take(lambda _: True)
            assert turn is not None
            assert served.get(turn[0], 0) == min(served.get(one, 0) for one in waiting)
            waiting.remove(turn[0])
            served[turn[0]] = number


def test_a_newcomer_is_next_behind_a_hundred_prompts() -> None:
    """The lone prompt of another user waits for the run that goes on, and no other."""
    queue = filled(["busy"] * 100)
    queue.take(lambda _: True)
    queue.add("lone", -1)

    assert drained(queue)[0] == -1


def test_who_may_not_run_is_passed_over_and_keeps_the_turn() -> None:
    """A user at the running limit delays nobody."""
    queue = filled(["a", "b"])

    assert queue.take(lambda subject: subject != "a") == ("b", 1)
    assert queue.take(lambda subject: subject != "a") is None
    assert queue.take(lambda _: True) == ("a", 0)


def test_a_user_at_the_limit_is_told_a_later_position() -> None:
    """Theirs is after those who may go before them."""
    queue = filled(["a", "a", "b"])

    assert list(queue.in_turn(["a", "c"], slots=2, per_subject=1)) == [0, 2, 1]
    assert list(queue.in_turn(["c", "a"], slots=2, per_subject=1)) == [2, 0, 1]
