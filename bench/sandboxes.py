"""What a sandbox costs, whoever makes it: time to the first text, warm and cold, and memory."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.memory import proportional
from bench.service import service
from bench.tools import ToolMissing
from tests.support.spawner import IMAGE, containers_of, why_no_engine, why_no_runtime

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.service import Service
    from bench.source import Source

GROUP = "sandboxes"
BUBBLEWRAP, DOCKER, GVISOR = "`bubblewrap`", "`docker`", "`docker` with gVisor"
_RUNTIMES = {DOCKER: "", GVISOR: "runsc"}
_MIB = 1 << 20
_SETTLED_S = 1.0
_WARM, _COLD = 3, 2

Samples = dict[str, list[float]]


async def measure(report: Report, provider: Source) -> None:
    """Measure them in turns, so that all meet the same weather.

    Raises:
        ToolMissing: There is no engine here to compare with.
    """
    if reason := why_no_engine():
        raise ToolMissing(reason)
    names = [BUBBLEWRAP, DOCKER, GVISOR]
    if reason := why_no_runtime(_RUNTIMES[GVISOR]):
        report.left_out[f"{GROUP}, {GVISOR}"] = reason
        names.remove(GVISOR)
    provider.each(pieces=5, interval_s=0.02)
    cold = await _cold(provider, names)
    warm, memory = await _warm(provider, names)
    for words, samples in (("cold", cold), ("warm", warm)):
        for name in names:
            baseline = "" if name == BUBBLEWRAP else f"{words}, {BUBBLEWRAP}"
            spread = [1000 * one for one in samples[name]]
            report.spread(GROUP, f"{words}, {name}", spread, "ms", baseline=baseline)
    words = "memory of one that waits"
    for name in names:
        baseline = "" if name == BUBBLEWRAP else f"{words}, {BUBBLEWRAP}"
        report.add(GROUP, f"{words}, {name}", memory[name] / _MIB, "MiB", baseline=baseline)


async def _cold(provider: Source, names: list[str]) -> Samples:
    samples: Samples = {name: [] for name in names}
    async with AsyncExitStack() as stack:
        services = await _services(stack, provider, names, pool=0)
        for _ in range(_COLD):
            for name, whole in services.items():
                samples[name].append(await whole.first_text_s())
    return samples


async def _warm(provider: Source, names: list[str]) -> tuple[Samples, dict[str, int]]:
    samples: Samples = {name: [] for name in names}
    async with AsyncExitStack() as stack:
        services = await _services(stack, provider, names, pool=1)
        for whole in services.values():
            await whole.first_text_s()  # the first reads the user's key; a second is the rule
        for _ in range(_WARM):
            await _until_warm(services)
            for name, whole in services.items():  # before the first one's pool boots another
                samples[name].append(await whole.first_text_s())
        await _until_warm(services)
        memory = {name: proportional(_sandboxed(whole)) for name, whole in services.items()}
    return samples, memory


async def _services(
    stack: AsyncExitStack, provider: Source, names: list[str], *, pool: int
) -> dict[str, Service]:
    services = {}
    for name in names:
        settings = {"RUNNER_WARM_POOL": str(pool), "RUNNER_SANDBOX": "bubblewrap"}
        if name in _RUNTIMES:
            settings |= {
                "RUNNER_SANDBOX": "docker",
                "SPAWNER_IMAGE": IMAGE,
                "SPAWNER_RUNTIME": _RUNTIMES[name],
                "DOCKER_HOST": os.environ["DOCKER_HOST"],
            }
        services[name] = await stack.enter_async_context(service(provider, **settings))
    return services


async def _until_warm(services: dict[str, Service]) -> None:
    for whole in services.values():
        await whole.until_warm()
    await asyncio.sleep(_SETTLED_S)


def _sandboxed(whole: Service) -> list[int]:
    """Return the processes of *whole*'s sandboxes, those of an own kernel included."""
    ids = containers_of(whole.stack.data_dir / "sandboxes")
    found = whole.sandboxed()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                text = (entry / "cgroup").read_text(encoding="ascii")
                if any(id_ in text for id_ in ids):
                    found.append(int(entry.name))
    return found
