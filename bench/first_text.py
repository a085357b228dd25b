"""Time to the first text, cold and warm, bare and through everything."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.bare import cold_run, warm_acp
from bench.service import service

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.source import Source

GROUP = "first text"
A = "(a) bare cold `opencode run`"
B = "(b) bare warm `opencode acp` by hand"
B_NEW = "(b) with the session's making"
C = "(c) through everything, warm, `process`"
D = "(d) through everything, warm, `bubblewrap`"
E = "(e) through everything, cold, `bubblewrap`"
_SETTLED_S = 0.3
_SLOWER = 1.5
_SOONER = 15.0

Samples = dict[str, list[float]]


async def measure(report: Report, provider: Source, *, warm: int, cold: int) -> None:
    """Measure what is compared in turns, so that all meet the same weather."""
    provider.each(pieces=5, interval_s=0.02)
    samples: Samples = {name: [] for name in (A, B, B_NEW, C, D, E)}
    async with service(provider, RUNNER_SANDBOX="bubblewrap", RUNNER_WARM_POOL="0") as whole:
        for _ in range(cold):
            samples[A].append(await cold_run(provider))
            samples[E].append(await whole.first_text_s())
    await _warm(provider, samples, warm)
    rows = {
        name: report.spread(
            GROUP, name, [1000 * one for one in samples[name]], "ms", baseline=baseline
        )
        for name, baseline in ((A, ""), (B, A), (B_NEW, A), (C, B), (D, B), (E, A))
    }
    for name in (C, D):
        sooner = rows[A].typical / rows[name].typical
        report.add(GROUP, f"{name}: sooner than (a)", sooner, "times", samples=warm)
    report.at_most(
        "warm, sandboxed, p50 to first text: (d) in terms of (b)",
        _SLOWER,
        rows[D].typical / rows[B].typical,
        "×",
    )
    report.at_least("the same, sooner than (a)", _SOONER, rows[A].typical / rows[D].typical, "×")


async def _warm(provider: Source, samples: Samples, count: int) -> None:
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(warm_acp(provider))
        services = [
            (
                name,
                await stack.enter_async_context(
                    service(provider, RUNNER_SANDBOX=sandbox, RUNNER_WARM_POOL="1")
                ),
            )
            for name, sandbox in ((C, "process"), (D, "bubblewrap"))
        ]
        for _, whole in services:
            await whole.first_text_s()  # the first reads the user's key; a second is the rule
        for _ in range(count):
            for name, whole in services:
                for _, booting in services:
                    await booting.until_warm()
                await asyncio.sleep(_SETTLED_S)
                from_prompt, from_new = await bare.first_text_s()
                samples[B].append(from_prompt)
                samples[B_NEW].append(from_new)
                await asyncio.sleep(_SETTLED_S)
                samples[name].append(await whole.first_text_s())
