"""What the warm pool decides, whatever it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from runner.pool.plan import Bounds, Member, Scene, decide

if TYPE_CHECKING:
    from runner.pool.plan import Decision

BOUNDS = Bounds(size=2, max_age_s=100.0)

bounds = st.builds(
    Bounds,
    size=st.integers(0, 5),
    max_age_s=st.just(100.0),
    boots_at_once=st.integers(1, 3),
)
members = st.lists(
    st.builds(
        Member,
        number=st.integers(1, 50),
        ready=st.booleans(),
        age_s=st.sampled_from([0.0, 99.0, 100.0, 500.0]),
        well=st.booleans(),
        current=st.booleans(),
        promised=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda member: member.number,
)
scenes = st.builds(
    Scene,
    members=members,
    wanted=st.integers(0, 3),
    starting=st.integers(0, 2),
    short_s=st.sampled_from([0.0, 1.9, 2.0, 60.0]),
    resting=st.booleans(),
    memory=st.sampled_from(["ample", "tight", "short"]),
)


def ready(number: int, **rest: object) -> Member:
    return replace(Member(number=number, ready=True), **rest)  # type: ignore[arg-type]


def booting(number: int, **rest: object) -> Member:
    return replace(Member(number=number, ready=False), **rest)  # type: ignore[arg-type]


def is_fit(member: Member) -> bool:
    aged = member.ready and member.age_s >= BOUNDS.max_age_s
    return member.well and member.current and not aged


def pool_after(scene: Scene, decision: Decision) -> list[Member]:
    """What belongs to nobody once the decision is carried out."""
    gone = {*decision.lend, *decision.close}
    old = [m for m in scene.members if m.number not in gone and not m.promised]
    return old + [booting(100 + n) for n in range(decision.start)]


@given(scenes, bounds)
def test_never_more_than_the_bound_are_kept_or_booted(scene: Scene, bounds: Bounds) -> None:
    """Ready and booting together stay within the size, boots within theirs."""
    decision = decide(scene, bounds)

    assert len(pool_after(scene, decision)) <= bounds.size
    already = sum(not member.ready for member in scene.members)
    assert decision.start == 0 or decision.start + already <= bounds.boots_at_once


@given(scenes, bounds)
def test_nobody_is_lent_twice_or_lent_and_closed(scene: Scene, bounds: Bounds) -> None:
    """A promised one is another run's: it is neither lent nor closed."""
    decision = decide(scene, bounds)

    assert len(set(decision.lend)) == len(decision.lend) <= scene.wanted
    assert not set(decision.lend) & set(decision.close)
    promised = {member.number for member in scene.members if member.promised}
    assert not promised & {*decision.lend, *decision.close}


@given(scenes, bounds)
def test_sick_aged_and_outdated_ones_are_closed(scene: Scene, bounds: Bounds) -> None:
    """Each of them at once, and never lent."""
    decision = decide(scene, bounds)

    unfit = {m.number for m in scene.members if not m.promised and not is_fit(m)}
    assert unfit <= set(decision.close)
    assert not unfit & set(decision.lend)


@given(scenes, bounds)
def test_nothing_is_started_while_it_would_hurt(scene: Scene, bounds: Bounds) -> None:
    """Not when a run asks or has just begun to start, after a failure, with little memory."""
    decision = decide(scene, bounds)

    has_begun = scene.starting and scene.short_s < bounds.patience_s
    if scene.wanted or has_begun or scene.resting or scene.memory != "ample":
        assert decision.start == 0


@given(scenes, bounds)
def test_whoever_asks_gets_one_if_there_is_one(scene: Scene, bounds: Bounds) -> None:
    """A run boots its own only when the pool has nothing left to give."""
    decision = decide(scene, bounds)

    fit = [m for m in scene.members if not m.promised and is_fit(m)]
    assert len(decision.lend) == min(scene.wanted, len(fit))


@given(st.data(), bounds)
def test_a_quiet_pool_fills_up_and_then_rests(data: st.DataObject, bounds: Bounds) -> None:
    """From any state, carrying decisions out leads to a full pool, where nothing is decided."""
    pool = [m for m in data.draw(members) if not m.promised]
    next_number = 100
    for _ in range(30):
        decision = decide(Scene(members=pool), bounds)
        if not decision.close and not decision.start and all(m.ready for m in pool):
            break
        pool = [replace(m, ready=True) for m in pool if m.number not in decision.close]
        for _ in range(decision.start):
            next_number += 1
            pool.append(booting(next_number))

    assert len(pool) == bounds.size
    assert all(member.ready and is_fit(member) for member in pool)


def test_runs_that_start_all_the_time_do_not_starve_the_pool() -> None:
    """They go first, for a while; then it boots one beside them, and then waits again."""
    scene = Scene(members=[ready(1)], starting=3, short_s=1.9)

    assert decide(scene, BOUNDS).start == 0
    assert decide(replace(scene, short_s=2.0), BOUNDS).start == 1
    assert decide(replace(scene, members=[booting(1)], short_s=2.0), BOUNDS).start == 0


def test_the_longest_ready_is_lent_first() -> None:
    """So that none grows old while others come and go; a booting one only after them."""
    scene = Scene(members=[booting(1), ready(3), ready(2)], wanted=3)

    assert decide(scene, BOUNDS).lend == (2, 3, 1)


def test_with_memory_short_one_goes_at_a_time() -> None:
    """What has booted least goes first; closing it may be enough."""
    scene = Scene(members=[ready(1), booting(2)], memory="short")

    assert dict(decide(scene, BOUNDS).close) == {2: "memory"}


def test_with_memory_tight_what_is_there_stays() -> None:
    """It is neither closed nor added to."""
    decision = decide(Scene(members=[ready(1)], memory="tight"), BOUNDS)

    assert (decision.start, dict(decision.close)) == (0, {})


def test_one_whose_run_left_is_surplus() -> None:
    """A boot that a run was promised comes back to the pool when the run leaves."""
    scene = Scene(members=[ready(1), ready(2), booting(3)])

    assert dict(decide(scene, BOUNDS).close) == {3: "surplus"}
