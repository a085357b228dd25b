"""Hundreds of runs that end at random moments in every way, and what they leave: nothing.

`make soak`. Ways to end: by itself, its reader leaves, its provider drops the connection, its
agent is killed, the runner is killed with `kill -9` and started again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import ClientError

from runner.sandbox.mark import cgroup_name
from tests.support.fake_provider import Plan, Seen, fake_provider
from tests.support.processes import descendants, eventually
from tests.support.runner import read_events, run_runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.runner import RunningRunner

LIGHT_AGENT = Path(__file__).parents[1] / "support" / "fake_agent.py"
_WAYS = ("finish", "disconnect", "drop", "kill-agent")
_RUNS_PER_KILLED_RUNNER = 10
_SETTLED_AFTER = 24
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(kw_only=True)
class Residue:
    """What is left, and how the runs ended.

    Attributes:
        ends: How often the last event was which.
        processes, mounts, cgroups, directories: What was left when all runs had ended.
        fds, memory_kb: Of the runner: when it had settled, and at its end.
    """

    ends: Counter[str] = field(default_factory=Counter)
    processes: int = 0
    mounts: int = 0
    cgroups: int = 0
    directories: int = 0
    sockets: int = 0
    fds: tuple[int, int] = (0, 0)
    memory_kb: tuple[int, int] = (0, 0)
    duration_s: float = 0.0

    @property
    def left(self) -> int:
        """Everything that should not be there."""
        return self.processes + self.mounts + self.cgroups + self.directories + self.sockets

    def __str__(self) -> str:
        return (
            f"{sum(self.ends.values())} runs in {self.duration_s:.0f} s: {dict(self.ends)}\n"
            f"left: {self.processes} processes, {self.mounts} mounts, {self.cgroups} cgroups,"
            f" {self.directories} directories, {self.sockets} sockets\n"
            f"runner: descriptors {self.fds[0]} -> {self.fds[1]},"
            f" memory {self.memory_kb[0] >> 10} -> {self.memory_kb[1] >> 10} MB"
        )


class Soak:
    """Carries out the runs."""

    def __init__(self, base: Path, *, at_once: int, agent: Path | None, seed: int) -> None:
        self._base = base
        self._at_once = at_once
        self._agent = {"OPENCODE_BIN": str(agent)} if agent else {}
        self._random = random.Random(seed)
        self._seen: set[tuple[int, str]] = set()
        self._cgroups: set[str] = set()
        self.residue = Residue()

    async def run(self, *, runs: int, kills: int) -> Residue:
        """Carry out *runs*, while the runner is killed *kills* times; return what is left."""
        began = time.monotonic()
        async with fake_provider() as provider:
            provider.plan = _plan
            settings = {
                "OPENAI_BASE_URL": provider.base_url,
                "MODELS": "openai/scripted",
                "MAX_CONCURRENT_PROCESSES": str(self._at_once),
                "LOG_LEVEL": "warning",
                **self._agent,
            }
            for _ in range(kills):
                share = min(_RUNS_PER_KILLED_RUNNER, max(1, runs // (kills + 1)))
                runs -= share
                with run_runner(self._base, **settings) as runner:
                    await self._life(runner, share, killed=True)
            with run_runner(self._base, **settings) as runner:
                await self._life(runner, runs, killed=False)
                self.residue.directories = len(runner.sandboxes)
                runner.stop()
            await _settled(lambda: not self._alive())
            self.residue.sockets = provider.open_streams
        self.residue.processes = len(self._alive())
        self.residue.mounts = _mounts(self._base)
        self.residue.cgroups = _cgroups(self._cgroups)
        self.residue.duration_s = time.monotonic() - began
        return self.residue

    async def _life(self, runner: RunningRunner, runs: int, *, killed: bool) -> None:
        left = iter(range(runs))
        done = Counter[str]()
        workers = [
            asyncio.create_task(self._worker(runner, left, done)) for _ in range(self._at_once)
        ]
        watching = asyncio.create_task(self._watch(runner, done))
        if killed:
            await asyncio.sleep(self._random.uniform(0.2, 2.5))
            runner.process.send_signal(signal.SIGKILL)
            runner.process.wait()
        await asyncio.gather(*workers)
        watching.cancel()
        self.residue.ends += done
        if not killed:
            await _settled(lambda: not runner.sandboxes and not runner.sandboxed())
            self.residue.fds = (self.residue.fds[0], _fds(runner.process.pid))
            self.residue.memory_kb = (self.residue.memory_kb[0], _memory(runner.process.pid))

    async def _watch(self, runner: RunningRunner, done: Counter[str]) -> None:
        """Remember every process there was, and how the runner is once it has settled."""
        while True:
            for pid in descendants(runner.process.pid):
                with suppress(OSError, IndexError):
                    self._seen.add((pid, _started(pid)))
            self._cgroups |= {cgroup_name(path) for path in runner.sandboxes}
            if not self.residue.fds[0] and done.total() >= _SETTLED_AFTER:
                self.residue.fds = (_fds(runner.process.pid), 0)
                self.residue.memory_kb = (_memory(runner.process.pid), 0)
            await asyncio.sleep(0.2)

    async def _worker(self, runner: RunningRunner, left: object, done: Counter[str]) -> None:
        for number in left:  # type: ignore[attr-defined]
            way = self._random.choice(_WAYS)
            try:
                done[await self._one(runner, way, number)] += 1
            except (ClientError, OSError):
                done["runner-killed"] += 1

    async def _one(self, runner: RunningRunner, way: str, number: int) -> str:
        pieces = self._random.randrange(2, 20)
        prompt = f"[{way} {pieces} {self._random.randrange(pieces)}]"
        stop_at = time.monotonic() + self._random.uniform(0, 1.5)
        end = "disconnected"
        async with runner.request_run(prompt, subject=f"user{number}", key="k") as response:
            stopping = asyncio.create_task(self._stop(runner, way, stop_at))
            reading = asyncio.create_task(_last_event(response))
            await asyncio.wait(
                {reading, stopping} if way == "disconnect" else {reading},
                return_when=asyncio.FIRST_COMPLETED,
            )
            stopping.cancel()
            if reading.done():
                end = reading.result()
            reading.cancel()
            await asyncio.wait({reading, stopping})
        return end

    async def _stop(self, runner: RunningRunner, way: str, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        if way == "kill-agent" and (running := sorted(runner.sandboxed())):
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(running), signal.SIGKILL)

    def _alive(self) -> list[int]:
        alive = []
        for pid, started in self._seen:
            with suppress(OSError, IndexError):
                if _started(pid) == started:
                    alive.append(pid)
        return alive


async def _settled(condition: Callable[[], bool]) -> None:
    """Wait a while for *condition*; what is left even so is counted."""
    with suppress(AssertionError):
        await eventually(condition, within_s=20)


def _plan(seen: Seen) -> Plan:
    found = re.search(r"\[([a-z-]+) (\d+) (\d+)\]", str(seen.body["input"]))
    assert found
    drop = int(found[3]) if found[1] == "drop" else None
    return Plan(pieces=["piece "] * int(found[2]), interval_s=0.05, drop_after=drop)


async def _last_event(response: object) -> str:
    last = "broken-off"
    async for event in read_events(response):  # type: ignore[arg-type]
        last = str(getattr(event, "code", event.type))
    return last


def _started(pid: int) -> str:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        raise ProcessLookupError
    return fields[19]


def _fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _mounts(base: Path) -> int:
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    return text.count(str(base))


def _cgroups(ours: set[str]) -> int:
    return sum(path.name in ours for path in _CGROUPS.glob("**/opencode-run-*"))


async def soak(
    *, runs: int, kills: int, at_once: int = 8, agent: Path | None = LIGHT_AGENT, seed: int = 1
) -> Residue:
    """Return what is left after *runs*; *agent* None: the real OpenCode."""
    base = Path(tempfile.mkdtemp(prefix="opencode-soak-"))
    base.chmod(0o711)
    try:
        return await Soak(base, at_once=at_once, agent=agent, seed=seed).run(runs=runs, kills=kills)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def main() -> int:
    """Print what is left after many light runs and some real ones."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=500)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--real", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    light = asyncio.run(soak(runs=given.runs, kills=given.kills, seed=given.seed))
    print(f"a light agent: {light}")  # noqa: T201
    real = asyncio.run(soak(runs=given.real, kills=1, at_once=4, agent=None, seed=given.seed))
    print(f"the real OpenCode: {real}")  # noqa: T201
    return 1 if light.left + real.left else 0


if __name__ == "__main__":
    sys.exit(main())
