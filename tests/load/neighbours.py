"""What bombs next door cost a stream, and what isolation costs a run; both measured in one go.

`make neighbours`.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract import events
from runner.sandbox.processes import proportional_bytes
from tests.attacks.registry import BOMBS
from tests.support.fake_provider import FakeProvider, Plan, Seen, fake_provider
from tests.support.runner import read_events, run_runner

if TYPE_CHECKING:
    from tests.support.runner import RunningRunner

PIECES = 300
_INTERVAL_S = 0.02
_RUNS = 5
_BOMBS = ("processes", "memory")
_SETTINGS = {
    "MODELS": "openai/scripted",
    "RUNNER_MEMORY_MB": "900",
    "RUNNER_PIDS": "120",
    "LOG_LEVEL": "warning",
}


class _Street:
    """A stream and its neighbours."""

    def __init__(self, provider: FakeProvider, runner: RunningRunner) -> None:
        self._gate = asyncio.Semaphore(0)
        self._runner = runner
        provider.plan = self._plan
        self._arrivals: list[float] = []
        self._ready = asyncio.Event()

    def _plan(self, seen: Seen) -> Plan:
        prompt = str(seen.body["input"])
        for name in _BOMBS:
            if f"bomb-{name}" in prompt:
                script = f"sleep 2; {BOMBS[name][1]}"
                return Plan(tools=[("bash", {"command": script, "description": "x"})])
        return Plan(pieces=["piece "] * PIECES, gate=self._gate)

    async def gaps(self, *, bombs: bool) -> tuple[list[float], list[str]]:
        """Return the pauses between pieces in ms, and how the neighbours ended."""
        streaming = asyncio.create_task(self._stream())
        bombing = [asyncio.create_task(self._bomb(name)) for name in _BOMBS] if bombs else []
        await self._ready.wait()
        while bombs and self._armed < len(_BOMBS):
            await asyncio.sleep(0.05)
        for _ in range(PIECES):
            self._gate.release()
            await asyncio.sleep(_INTERVAL_S)
        await streaming
        ends = [await bomb for bomb in bombing]
        pauses = [1000 * (b - a) for a, b in zip(self._arrivals, self._arrivals[1:], strict=False)]
        return pauses, ends

    _armed = 0

    async def _stream(self) -> None:
        async with self._runner.request_run("stream", subject="alice", key="k") as response:
            async for event in read_events(response):
                if isinstance(event, events.RunStarted):
                    self._ready.set()
                if isinstance(event, events.TextDelta):
                    self._arrivals.append(time.monotonic())

    async def _bomb(self, name: str) -> str:
        end = ""
        async with self._runner.request_run(f"bomb-{name}", subject=name, key="k") as response:
            async for event in read_events(response):
                if isinstance(event, events.ToolStarted):
                    self._armed += 1
                end = str(getattr(event, "code", event.type))
        return end


async def stutter(*, bombs: bool) -> tuple[list[float], list[str]]:
    """Return a stream's pauses in ms, with bombs next door or without."""
    async with fake_provider() as provider:
        with (
            tempfile.TemporaryDirectory() as base,
            run_runner(_open(base), OPENAI_BASE_URL=provider.base_url, **_SETTINGS) as runner,
        ):
            return await _Street(provider, runner).gaps(bombs=bombs)


async def cost(backend: str) -> tuple[float, float]:
    """Return the median time to the first text in s, and memory in MB, with *backend*."""
    times, sizes = [], []
    async with fake_provider() as provider:
        with (
            tempfile.TemporaryDirectory() as base,
            run_runner(
                _open(base),
                OPENAI_BASE_URL=provider.base_url,
                RUNNER_SANDBOX=backend,
                **_SETTINGS,
            ) as runner,
        ):
            for _ in range(_RUNS):
                provider.plan = Plan(pieces=["a", "b"], gate=(gate := asyncio.Semaphore(1)))
                began = time.monotonic()
                async with runner.request_run("Hi", key="k") as response:
                    async for event in read_events(response):
                        if isinstance(event, events.TextDelta) and gate.locked():
                            times.append(time.monotonic() - began)
                            sizes.append(sum(map(proportional_bytes, runner.sandboxed())))
                            gate.release()
                            gate.release()
    return statistics.median(times), statistics.median(sizes) / (1 << 20)


def _open(base: str) -> Path:
    Path(base).chmod(0o711)
    return Path(base)


def main() -> None:
    """Measure and print."""
    for bombs in (False, True):
        pauses, ends = asyncio.run(stutter(bombs=bombs))
        where = f"beside bombs ({', '.join(ends)})" if bombs else "alone"
        ordered = sorted(pauses)
        print(  # noqa: T201
            f"{len(pauses) + 1} pieces {where}: median {statistics.median(pauses):.0f} ms,"
            f" 99 % {ordered[int(len(ordered) * 0.99)]:.0f} ms, slowest {ordered[-1]:.0f} ms"
        )
    for backend in ("process", "bubblewrap"):
        first_s, memory_mb = asyncio.run(cost(backend))
        print(f"{backend}: first text after {first_s:.2f} s, {memory_mb:.0f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
