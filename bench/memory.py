"""How many sandboxes fit into a GiB."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bench.bare import warm_acp
from bench.service import service
from runner.sandbox.processes import proportional_bytes
from tests.support.processes import descendants

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.source import Source

GROUP = "memory"
_MIB, _GIB = 1 << 20, 1 << 30
_SETTLED_S = 4.0
_COUNT = 2


async def measure(report: Report, provider: Source) -> None:
    """Measure proportional memory: pages that are shared are shared out."""
    provider.each(pieces=5, interval_s=0.02)
    async with warm_acp(provider) as acp:
        await asyncio.sleep(_SETTLED_S)
        bare = proportional([acp.pid, *descendants(acp.pid)])
    async with service(provider, RUNNER_WARM_POOL=str(_COUNT)) as whole:
        await whole.until_warm()
        await asyncio.sleep(_SETTLED_S)
        idle = proportional(whole.sandboxed()) / _COUNT
        provider.each(pieces=200, interval_s=0.2)
        async with whole.streams(_COUNT) as reads:
            await reads.until_all_speak()
            await whole.until_warm()  # others have taken their places in the pool
            await asyncio.sleep(_SETTLED_S)
            busy = proportional(whole.sandboxed()) / _COUNT - idle
    words = "bare warm `opencode acp`"
    report.add(GROUP, words, bare / _MIB, "MiB")
    report.add(GROUP, "a warm sandbox, waiting", idle / _MIB, "MiB", baseline=words, samples=_COUNT)
    report.add(GROUP, "a sandbox in a run", busy / _MIB, "MiB", baseline=words, samples=_COUNT)
    words = f"{words}, per GiB"
    report.add(GROUP, words, _GIB / bare)
    report.add(GROUP, "warm sandboxes per GiB", _GIB / idle, baseline=words, samples=_COUNT)


def proportional(pids: list[int]) -> int:
    """Return the memory of *pids*."""
    return sum(map(proportional_bytes, pids))
