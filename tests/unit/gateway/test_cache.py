"""The token cache: short trust, one question at a time, and nothing from before a change."""

from __future__ import annotations

import asyncio

import pytest

from gateway.auth.cache import CachingVerifier
from gateway.auth.tokens import Identity
from runner.contract.problems import PocketBaseUnavailable


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A verifier that answers when it is let."""

    def __init__(self, *, expires_at: float = 1e12) -> None:
        self.asked: list[str] = []
        self.expires_at = expires_at
        self.failure: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def verify(self, token: str) -> Identity:
        self.asked.append(token)
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        user_id = token.partition("-")[0]
        return Identity(user_id=user_id, name=user_id, expires_at=self.expires_at)


async def test_an_answer_is_good_for_its_time_only() -> None:
    """Within the time nobody is asked again; after it somebody is."""
    inner, clock = Scripted(), Clock()
    cache = CachingVerifier(inner, ttl_s=30, now=clock)

    for now in (1000.0, 1029.9, 1030.1):
        clock.now = now
        await cache.verify("alice-1")

    assert inner.asked == ["alice-1"] * 2


async def test_trust_ends_with_the_token() -> None:
    """A token that expires before the time is over is asked about again."""
    inner, clock = Scripted(expires_at=1010.0), Clock()
    cache = CachingVerifier(inner, ttl_s=30, now=clock)

    await cache.verify("alice-1")
    clock.now = 1010.1
    await cache.verify("alice-1")

    assert len(inner.asked) == 2


async def test_callers_share_a_question_and_one_who_leaves_does_no_harm() -> None:
    """Fifty callers, one question; the first gives up, the others get their answer."""
    inner = Scripted()
    inner.go.clear()
    cache = CachingVerifier(inner, ttl_s=30)
    callers = [asyncio.create_task(cache.verify("alice-1")) for _ in range(50)]
    await asyncio.sleep(0)

    callers[0].cancel()
    await asyncio.sleep(0)
    inner.go.set()
    identities = await asyncio.gather(*callers[1:])

    assert inner.asked == ["alice-1"]
    assert {identity.user_id for identity in identities} == {"alice"}


async def test_failures_are_not_kept() -> None:
    """PocketBase away for a moment is away for that moment only."""
    inner = Scripted()
    cache = CachingVerifier(inner, ttl_s=30)
    inner.failure = PocketBaseUnavailable()
    with pytest.raises(PocketBaseUnavailable):
        await cache.verify("alice-1")

    inner.failure = None

    assert (await cache.verify("alice-1")).user_id == "alice"


async def test_a_changed_user_is_forgotten_and_nobody_else() -> None:
    """All tokens of one user go; others stay."""
    inner = Scripted()
    cache = CachingVerifier(inner, ttl_s=30)
    for token in ("alice-1", "alice-2", "bob-1"):
        await cache.verify(token)

    cache.evict("alice")
    for token in ("alice-1", "alice-2", "bob-1"):
        await cache.verify(token)

    assert sorted(inner.asked) == ["alice-1", "alice-1", "alice-2", "alice-2", "bob-1"]


@pytest.mark.parametrize("everybody", [False, True])
async def test_answers_from_before_a_change_are_not_kept(*, everybody: bool) -> None:
    """An answer under way at the change helps who waits for it, and nobody who comes later."""
    inner = Scripted()
    inner.go.clear()
    cache = CachingVerifier(inner, ttl_s=30)
    early = asyncio.create_task(cache.verify("alice-1"))
    await asyncio.sleep(0)

    cache.clear() if everybody else cache.evict("alice")
    late = asyncio.create_task(cache.verify("alice-1"))
    await asyncio.sleep(0)
    inner.go.set()
    await asyncio.gather(early, late)
    await cache.verify("alice-1")

    assert len(inner.asked) == 2  # the late one asked for itself, and its answer was kept


async def test_the_cache_is_bounded() -> None:
    """The oldest answer makes room for the newest."""
    inner = Scripted()
    cache = CachingVerifier(inner, ttl_s=30, max_entries=2)

    for token in ("a-1", "b-1", "c-1", "c-1", "b-1", "a-1"):
        await cache.verify(token)

    assert inner.asked == ["a-1", "b-1", "c-1", "a-1"]
