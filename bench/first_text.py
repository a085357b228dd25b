"""Time from HTTP request to first text, cold and warm, bare and through everything."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.bare import cold_run, warm_acp
from bench.figures import percentile
from bench.service import service

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.provider import StampingProvider

GROUP = "first text"
A = "(a) bare cold `opencode run`"
B = "(b) bare warm `opencode acp` by hand"
B_NEW = "(b) with the session's making"
C = "(c) through everything, warm, `process`"
D = "(d) through everything, warm, `bubblewrap`"
E = "(e) through everything, cold, `bubblewrap`"
_SETTLED_S = 0.3
_SHARES = {"p50": 0.5, "p95": 0.95, "slowest": 1.0}

Samples = dict[str, list[float]]


async def measure(report: Report, provider: StampingProvider, *, warm: int, cold: int) -> None:
    """Measure what is compared in turns, so that both meet the same weather."""
    provider.pieces, provider.interval_s = 5, 0.02
    samples: Samples = {A: [], E: []}
    async with service(provider, RUNNER_SANDBOX="bubblewrap", RUNNER_WARM_POOL="0") as whole:
        for _ in range(cold):
            samples[A].append(await cold_run(provider))
            samples[E].append(await whole.first_text_s())
    _add(report, A, samples[A])
    _add(report, E, samples[E], baseline=A)
    for name, sandbox in ((C, "process"), (D, "bubblewrap")):
        samples[A].append(await cold_run(provider))
        samples |= await _in_turns(provider, name, sandbox, warm)
        beside = f"{B}, beside {name[:3]}"
        _add(report, beside, samples[B], baseline=A)
        _add(report, f"{B_NEW}, beside {name[:3]}", samples[B_NEW], baseline=A)
        _add(report, name, samples[name], baseline=beside)
    for name in (C, D):
        sooner = percentile(samples[A], 0.5) / percentile(samples[name], 0.5)
        report.add(GROUP, f"{name}: sooner than (a)", sooner, "times", samples=warm)


async def _in_turns(provider: StampingProvider, name: str, sandbox: str, count: int) -> Samples:
    samples: Samples = {B: [], B_NEW: [], name: []}
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(warm_acp(provider))
        whole = await stack.enter_async_context(
            service(provider, RUNNER_SANDBOX=sandbox, RUNNER_WARM_POOL="2")
        )
        await whole.first_text_s()  # the first reads the user's key; a second is the rule
        for _ in range(count):
            await whole.until_warm()
            await asyncio.sleep(_SETTLED_S)
            from_prompt, from_new = await bare.first_text_s()
            samples[B].append(from_prompt)
            samples[B_NEW].append(from_new)
            await asyncio.sleep(_SETTLED_S)
            samples[name].append(await whole.first_text_s())
    return samples


def _add(report: Report, name: str, samples: list[float], *, baseline: str = "") -> None:
    for word, share in _SHARES.items():
        report.add(
            GROUP,
            f"{name}, {word}",
            percentile(samples, share) * 1000,
            "ms",
            baseline=f"{baseline}, {word}" if baseline else "",
            samples=len(samples),
        )
