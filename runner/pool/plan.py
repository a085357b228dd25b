"""What the warm pool does next: whom to lend, what to close, how many to start. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Memory = Literal["ample", "tight", "short"]
"""`tight`: not enough for one more. `short`: so little that one has to go."""

Reason = Literal["sick", "replaced", "aged", "surplus", "memory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What the operator set.

    Attributes:
        size: How many are kept ready.
        max_age_s: How long one may have been ready.
        boots_at_once: How many the pool boots at the same time.
        patience_s: How long it lets runs that start go first, when it is short.
    """

    size: int
    max_age_s: float
    boots_at_once: int = 1
    patience_s: float = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One warm agent, or one that becomes it.

    Attributes:
        number: Its name; later ones have higher ones.
        ready: Whether it has booted.
        age_s: How long it has been ready.
        well: Whether it can be spoken to.
        current: Whether it was made of the OpenCode that is installed now.
        promised: Whether a run already waits for it.
    """

    number: int
    ready: bool
    age_s: float = 0.0
    well: bool = True
    current: bool = True
    promised: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """How things stand.

    Attributes:
        wanted: Runs that ask for an agent right now.
        starting: Runs that boot one of their own, or were lent one a moment ago.
        short_s: How long there have been too few, and none was booted.
        resting: Whether a boot failed lately.
        memory: How much of the host's memory is left.
    """

    members: Sequence[Member]
    wanted: int = 0
    starting: int = 0
    short_s: float = 0.0
    resting: bool = False
    memory: Memory = "ample"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        lend: Numbers of the members the asking runs get, in order; who gets none boots their own.
        close: Number → why.
        start: How many boots to begin.
    """

    lend: tuple[int, ...]
    close: Mapping[int, Reason]
    start: int


def decide(scene: Scene, bounds: Bounds) -> Decision:
    """Return what to do now.

    A run that finds none ready is promised one that boots: it has a head start.
    """
    close = {
        member.number: reason
        for member in scene.members
        if not member.promised and (reason := _unfit(member, bounds)) is not None
    }
    free = [m for m in scene.members if not m.promised and m.number not in close]
    # The longest ready first, so that none grows old; then the one that will be ready first.
    free.sort(key=lambda member: (not member.ready, member.number))
    lend, kept = free[: scene.wanted], free[scene.wanted :]
    close |= {member.number: "surplus" for member in kept[bounds.size :]}
    kept = kept[: bounds.size]
    if scene.memory == "short" and kept and not close:
        # The one that has the least done. One at a time: closing it gives memory back.
        close[kept.pop().number] = "memory"
    return Decision(
        lend=tuple(member.number for member in lend), close=close, start=_start(scene, bounds, kept)
    )


def _unfit(member: Member, bounds: Bounds) -> Reason | None:
    if not member.well:
        return "sick"
    if not member.current:
        return "replaced"
    if member.ready and member.age_s >= bounds.max_age_s:
        return "aged"
    return None


def _start(scene: Scene, bounds: Bounds, kept: Sequence[Member]) -> int:
    """Return how many to start: not beside runs that start, if these ever leave room."""
    if scene.wanted or scene.resting or scene.memory != "ample":
        return 0
    if scene.starting and scene.short_s < bounds.patience_s:
        return 0
    booting = sum(not member.ready for member in scene.members)
    return max(0, min(bounds.size - len(kept), bounds.boots_at_once - booting))
