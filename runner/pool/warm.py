"""Keeps booted agents ready, and lends each to one run."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from runner.contract.problems import ServiceError
from runner.plumbing.cleanup import finish
from runner.pool.memory import available_bytes
from runner.pool.plan import Member, Scene, decide

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from runner.agents.agent import BootedAgent
    from runner.pool.plan import Bounds, Decision, Memory, Reason

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LOOK_INTERVAL_S = 1.0
_QUIET_S = 1.0
"""A run that has its agent prompts it first; only then the next boot takes the CPU."""

_AGENT_BYTES = 700 << 20
"""What a warm agent takes, with some room."""

_CLOSE_TIMEOUT_S = 15.0
_MAX_REST_S = 60.0


@dataclass(kw_only=True, eq=False)
class _Warm:
    """One member of the pool: booting, then ready."""

    number: int
    fingerprint: str
    began: float
    ready_since: float = 0.0
    agent: BootedAgent | None = None
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    booting: asyncio.Task[None] | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    promised: bool = False


class WarmPool:
    """Booted agents that belong to nobody yet. Use it as `async with`; it is an `AgentSource`.

    Args:
        boot: Boots one; is told how to find out whether a run waits for it.
        bounds: How many, how old.
        fingerprint: Names the OpenCode that is installed now.
        min_free_bytes: With less memory than that left, the pool shrinks.
        free_bytes: Says how much is left.

    Attributes:
        claims: How many runs got a warm one.
        misses: How many had to boot.
    """

    def __init__(
        self,
        boot: Callable[[Callable[[], bool]], AbstractAsyncContextManager[BootedAgent]],
        *,
        bounds: Bounds,
        fingerprint: Callable[[], str],
        min_free_bytes: int,
        free_bytes: Callable[[], int] = available_bytes,
    ) -> None:
        self._boot = boot
        self.bounds = bounds
        self._fingerprint = fingerprint
        self._min_free_bytes = min_free_bytes
        self._free_bytes = free_bytes
        self._members: dict[int, _Warm] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._last_number = 0
        self._starting = 0
        self._failures = 0
        self._rest_until = 0.0
        self._short_since: float | None = None
        self.claims = 0
        self.misses = 0
        self._changed = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def idle(self) -> int:
        """How many are ready."""
        return sum(member.agent is not None for member in self._members.values())

    @property
    def booting(self) -> int:
        """How many are on their way."""
        return len(self._members) - self.idle

    async def __aenter__(self) -> WarmPool:
        """Begin to fill it."""
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all of it, bounded."""
        await finish(self._end())

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[BootedAgent]:
        """See `AgentSource.lend`: a warm one if there is one, else one that boots."""
        async with AsyncExitStack() as stack:
            self._starting += 1
            try:
                agent = await self._taken(stack)
            finally:
                asyncio.get_running_loop().call_later(_QUIET_S, self._calmed)
            yield agent

    async def _taken(self, stack: AsyncExitStack) -> BootedAgent:
        for number in self._act(wanted=1).lend:
            member = self._members[number]
            member.promised = True
            try:
                await member.settled.wait()  # a boot bounds itself
            finally:
                member.promised = False
                self._changed.set()
            if member.agent is not None and self._members.pop(number, None) is not None:
                log.info("warm_agent_lent", ready_s=round(time.monotonic() - member.ready_since, 1))
                self.claims += 1
                await stack.enter_async_context(member.stack.pop_all())
                return member.agent
        self.misses += 1
        return await stack.enter_async_context(self._boot(lambda: True))

    def _calmed(self) -> None:
        self._starting -= 1
        self._changed.set()

    async def _keep(self) -> None:
        """Fill the pool and look after it, forever."""
        while True:
            self._act()
            try:
                async with asyncio.timeout(_LOOK_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    def _act(self, *, wanted: int = 0) -> Decision:
        """Decide, and begin what was decided, but for the lending."""
        now = time.monotonic()
        fingerprint = self._installed()
        scene = Scene(
            members=[self._seen(member, now, fingerprint) for member in self._members.values()],
            wanted=wanted,
            starting=self._starting,
            short_s=0.0 if self._short_since is None else now - self._short_since,
            resting=now < self._rest_until or not fingerprint,
            memory=self._memory(),
        )
        decision = decide(scene, self.bounds)
        for number, reason in decision.close.items():
            self._close(self._members.pop(number), reason)
        for _ in range(decision.start):
            self._begin(fingerprint, now)
        if self.booting or len(self._members) >= self.bounds.size:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        return decision

    def _seen(self, member: _Warm, now: float, fingerprint: str) -> Member:
        return Member(
            number=member.number,
            ready=member.agent is not None,
            age_s=now - member.ready_since if member.agent is not None else 0.0,
            well=member.agent is None or member.agent.is_well,
            current=member.fingerprint == fingerprint,
            promised=member.promised,
        )

    def _installed(self) -> str:
        try:
            return self._fingerprint()
        except ServiceError:
            return ""

    def _memory(self) -> Memory:
        free = self._free_bytes()
        if free < self._min_free_bytes and not self._closing:
            return "short"
        return "ample" if free >= self._min_free_bytes + _AGENT_BYTES else "tight"

    def _begin(self, fingerprint: str, now: float) -> None:
        self._last_number += 1
        member = _Warm(number=self._last_number, fingerprint=fingerprint, began=now)
        self._members[member.number] = member
        member.booting = asyncio.create_task(self._boot_member(member))

    async def _boot_member(self, member: _Warm) -> None:
        try:
            async with AsyncExitStack() as stack:
                agent = await stack.enter_async_context(self._boot(lambda: member.promised))
                member.stack = stack.pop_all()
            member.ready_since = time.monotonic()
            member.agent = agent
            self._failures = 0
            log.info("warm_agent_ready", boot_s=round(member.ready_since - member.began, 3))
        except ServiceError as failure:
            self._failed(member, failure.code)
        except Exception as exc:
            log.exception("warm_boot_crashed", error=type(exc).__name__)
            self._failed(member, "internal")
        finally:
            member.settled.set()
            self._changed.set()

    def _failed(self, member: _Warm, code: str) -> None:
        """Try again, but not at once: a boot that fails costs as much as one that doesn't."""
        self._members.pop(member.number, None)
        rest_s = min(_MAX_REST_S, 2.0**self._failures)
        self._failures += 1
        self._rest_until = time.monotonic() + rest_s
        log.warning("warm_boot_failed", code=code, retry_s=rest_s)

    def _close(self, member: _Warm, reason: Reason | None) -> None:
        """Begin to end *member*, which is out of the pool already."""
        if reason is not None:
            log.info("warm_agent_closed", reason=reason)
        closing = asyncio.create_task(_ended(member))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        closing.add_done_callback(lambda _: self._changed.set())

    async def _end(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        while self._members:
            self._close(self._members.popitem()[1], None)
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=_CLOSE_TIMEOUT_S)
            if late:
                log.error("warm_agents_left", count=len(late))


async def _ended(member: _Warm) -> None:
    if member.booting is not None:
        member.booting.cancel()
        await asyncio.wait({member.booting})
    try:
        await member.stack.aclose()
    except Exception as exc:
        log.exception("warm_agent_ended_badly", error=type(exc).__name__)
