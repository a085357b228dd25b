"""How it grows: with the runs that begin at once, and with those that wait."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.agents import light_agents
from bench.memory import proportional
from bench.service import LIGHT, service
from bench.streams import POSITION

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.service import Service
    from bench.source import Group, Source
    from bench.streams import Streams

AT_ONCE = "growth: prompts at once, all warm"
WAITING = "growth: runs that wait"
_AT_ONCE = (1, 2, 4, 8)
_WAITING = (10, 100, 1000)
_SETTLED_S = 0.5
_KIB = 1 << 10
_MOVES = 3
_ALONE = "delay of a stream that runs, nobody waiting"
_ALONE_S = 3.0
_LOOK_EVERY_S = 0.02
_PATIENCE_S = 10.0


async def measure(report: Report, provider: Source) -> None:
    """Measure the first with OpenCode, the second with light agents; both through everything."""
    await _at_once(report, provider)
    with tempfile.TemporaryDirectory() as directory:
        async with light_agents(Path(directory)) as agent:
            settings = LIGHT | {"OPENCODE_BIN": str(agent), "MAX_CONCURRENT_PROCESSES": "2"}
            async with service(provider, **settings) as whole:
                await _waiting(report, provider, whole)


async def _at_once(report: Report, provider: Source) -> None:
    most = max(_AT_ONCE)
    settings = {"RUNNER_WARM_POOL": str(most), "MAX_CONCURRENT_PROCESSES": str(most)}
    async with service(provider, **settings) as whole:
        for count in _AT_ONCE:
            await whole.until_warm()
            await asyncio.sleep(_SETTLED_S)
            provider.each(pieces=5, interval_s=0.02)
            async with whole.streams(count) as reads:
                await reads.until_over()
                reads.check()
            report.spread(
                AT_ONCE,
                f"first text of {count}",
                [1000 * stream.first_s for stream in reads.streams],
                "ms",
                baseline="" if count == 1 else "first text of 1",
            )


async def _waiting(report: Report, provider: Source, whole: Service) -> None:
    """One slot streams, the other one is what all the others wait for."""
    for count in (0, *_WAITING):
        provider.each(pieces=10_000, interval_s=0.05)
        async with whole.streams(1) as running:
            await running.until_all_speak()
            if count:
                await _behind(report, provider, whole, running, count)
            else:
                await asyncio.sleep(_ALONE_S)
                report.spread(WAITING, _ALONE, _delays_ms(running, 1), "ms")
        await whole.until_idle()


async def _behind(
    report: Report, provider: Source, whole: Service, running: Streams, count: int
) -> None:
    """Let *count* wait, and move on a few times."""
    pids = whole.part("gateway"), whole.part("runner")
    before = [proportional(part) for part in pids]
    coming = running.pieces
    has_slot = provider.hold(1)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(whole.streams(1))
        await first.until(has_slot.complete())
        waiting = await stack.enter_async_context(whole.streams(count, pattern=POSITION))
        await waiting.until_all_speak()
        waiting.check()
        all_there = running.pieces
        after = [proportional(part) for part in pids]
        admitted = [1000 * stream.first_s for stream in waiting.streams]
        moved = await _moves(provider, has_slot, waiting)
    few = min(_WAITING)
    for name, samples in (
        ("until each knows its place", admitted),
        ("until all know their new places", moved),
    ):
        baseline = "" if count == few else f"{few} waiting: {name}"
        report.spread(WAITING, f"{count} waiting: {name}", samples, "ms", baseline=baseline)
    for name, delays in (
        ("arrive", _delays_ms(running, coming, all_there)),
        ("wait and move on", _delays_ms(running, all_there)),
    ):
        report.spread(WAITING, f"the same, while {count} {name}", delays, "ms", baseline=_ALONE)
    for name, was, is_ in zip(("gateway", "runner"), before, after, strict=True):
        words = f"memory of the {name} for each"
        baseline = "" if count == few else f"{few} waiting: {words}"
        each = (is_ - was) / count / _KIB
        report.add(WAITING, f"{count} waiting: {words}", each, "KiB", baseline=baseline)


def _delays_ms(running: Streams, first: int, end: int | None = None) -> list[float]:
    """Return the delays of the stream that runs, from its piece *first* to before *end*."""
    delays = running.streams[0].delays_s[first:end]
    return [1000 * delay for delay in delays or running.streams[0].delays_s[-1:]]


async def _moves(provider: Source, has_slot: Group, waiting: Streams) -> list[float]:
    """Return how long each move took, from the end that makes room to the last one's news (ms)."""
    took: list[float] = []
    for number in range(1, _MOVES + 1):
        heard = [len(stream.found) for stream in waiting.streams]
        upcoming = provider.hold(1)  # the next one's call: it keeps the slot until it is told
        await has_slot.play_all(1, 0)
        freed_ns, deadline = time.monotonic_ns(), time.monotonic() + _PATIENCE_S
        news: list[int] = []
        # Those who have got a slot hear no more of places.
        while len(news) < len(waiting.streams) - number and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_EVERY_S)
            counts = zip(waiting.streams, heard, strict=True)
            news = [stream.found[-1][0] for stream, had in counts if len(stream.found) > had]
        took.append((max(news, default=time.monotonic_ns()) - freed_ns) / 1e6)
        await asyncio.wait_for(upcoming.complete(), _PATIENCE_S)
        has_slot = upcoming
    await has_slot.play_all(1, 0)
    return took
