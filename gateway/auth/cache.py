"""Remember for a short time what PocketBase said about a token."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.auth.tokens import Identity, TokenVerifier


class OnCheck(Protocol):
    """Is told of every look at a token."""

    def __call__(self, *, known: bool) -> None:
        """Take note whether it was *known*, or PocketBase has to be asked."""


def _count_nothing(*, known: bool) -> None:
    pass


class CachingVerifier:
    """A `TokenVerifier` in front of another one.

    Only acceptances are kept, for *ttl_s* or until the token expires. Callers that arrive
    together share one question; one of them giving up does not disturb the rest.
    """

    def __init__(
        self,
        inner: TokenVerifier,
        *,
        ttl_s: float,
        max_entries: int = 10_000,
        now: Callable[[], float] = time.time,
        on_check: OnCheck = _count_nothing,
    ) -> None:
        self._inner = inner
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._now = now
        self._on_check = on_check
        self._known: dict[bytes, tuple[float, Identity]] = {}
        self._asking: dict[bytes, asyncio.Task[Identity]] = {}
        self._tasks: set[asyncio.Task[Identity]] = set()
        self._changes = 0

    async def verify(self, token: str) -> Identity:
        """See `TokenVerifier.verify`."""
        key = hashlib.sha256(token.encode()).digest()  # the token itself is never kept
        until, identity = self._known.get(key, (0.0, None))
        known = identity is not None and self._now() < until
        self._on_check(known=known)
        if identity is not None and known:
            return identity
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, token))
            self._tasks.add(task)
            task.add_done_callback(self._forget_task)
        return await asyncio.shield(task)

    def evict(self, user_id: str) -> None:
        """Forget what is known about a user who changed or is gone."""
        self._distrust_answers_under_way()
        for key in [key for key, (_, known) in self._known.items() if known.user_id == user_id]:
            del self._known[key]

    def clear(self) -> None:
        """Forget everything."""
        self._distrust_answers_under_way()
        self._known.clear()

    def _distrust_answers_under_way(self) -> None:
        """Answers that may be older than the change help only those who wait for them already."""
        self._changes += 1
        self._asking.clear()

    async def _ask(self, key: bytes, token: str) -> Identity:
        changes = self._changes
        try:
            identity = await self._inner.verify(token)
        finally:
            if self._asking.get(key) is asyncio.current_task():
                del self._asking[key]
        if changes == self._changes:
            if len(self._known) >= self._max_entries:
                del self._known[next(iter(self._known))]
            self._known[key] = (min(self._now() + self._ttl_s, identity.expires_at), identity)
        return identity

    def _forget_task(self, task: asyncio.Task[Identity]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # all who waited may have left: then nobody else looks at it


_: type[TokenVerifier] = CachingVerifier
