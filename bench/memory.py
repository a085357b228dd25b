"""How many sandboxes fit into a GiB."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bare import warm_acp
from bench.service import service
from tests.support.processes import descendants

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.provider import StampingProvider

GROUP = "memory"
_MIB = 1 << 20
_SETTLED_S = 5.0
_COUNT = 2


async def measure(report: Report, provider: StampingProvider) -> None:
    """Measure proportional memory: pages that are shared are shared out."""
    provider.pieces, provider.interval_s = 100, 0.2
    bare = "bare warm `opencode acp`"
    async with warm_acp(provider) as acp:
        await asyncio.sleep(_SETTLED_S)
        report.add(GROUP, bare, _proportional([acp.pid, *descendants(acp.pid)]) / _MIB, "MiB")
    async with service(provider, RUNNER_WARM_POOL=str(_COUNT)) as whole:
        await whole.until_warm()
        await asyncio.sleep(_SETTLED_S)
        idle = _proportional(whole.sandboxed()) / _COUNT
        report.add(GROUP, "a warm sandbox, waiting", idle / _MIB, "MiB", baseline=bare)
    async with service(provider, RUNNER_WARM_POOL="0") as whole:
        reading = [asyncio.create_task(whole.until_cancelled()) for _ in range(_COUNT)]
        provider.expect(_COUNT)
        await provider.all_open()
        await asyncio.sleep(_SETTLED_S)
        busy = _proportional(whole.sandboxed()) / _COUNT
        report.add(GROUP, "a sandbox in a run", busy / _MIB, "MiB", baseline=bare)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        provider.expect(1)
    report.add(GROUP, "warm sandboxes per GiB", (1 << 30) / idle, "")


def _proportional(pids: list[int]) -> int:
    return sum(_pss(pid) for pid in pids)


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) << 10
