"""The gateway by itself, beside an nginx that does the same passing on and checks nothing.

What is compared is the work of one core: requests over the processor time that the process itself
took, so that it does not matter what else the machine does.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench import wire
from bench.memory import proportional
from bench.nginx import nginx
from bench.streams import reading
from bench.tools import find
from bench.wrk import load
from tests.support.gateway_process import environment, started, until_up
from tests.support.pocketbase import free_port, run_pocketbase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.figures import Report
    from bench.source import Source
    from bench.tools import Tool

GROUP = "gateway alone"
_TURNS = 3
_TURN_S = 3
_STREAMS = 1000
_PIECES = 5
_INTERVAL_S = 2.0
_KIB = 1024
_SHARE = 0.25
_MOST_KIB = 100.0
_TICKS_S = os.sysconf("SC_CLK_TCK")
_PASSED_ON = "/api/health"
_OWN = ("/opencode/models", "/opencode/key")
_RATE, _P99 = ": requests per second of a core", ": p99"
_MEMORY, _BROKEN = f"memory per stream, {_STREAMS} at once", f"broken of {_STREAMS} streams"


@dataclass
class _Asked:
    """What is asked for over and over, and what came of it.

    Attributes:
        pids: Whose processor time it takes.
    """

    name: str
    url: str
    pids: list[int]
    headers: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    processor_s: float = 0.0
    p99_ms: list[float] = field(default_factory=list)

    async def turn(self, tool: Tool, *, seconds: int) -> None:
        """Ask for so long."""
        before = _processor_s(self.pids)
        done = await load(tool, self.url, self.headers, seconds=seconds)
        self.processor_s += _processor_s(self.pids) - before
        self.requests += done.requests
        self.p99_ms.append(done.p99_ms)

    def forget(self) -> None:
        """Begin anew."""
        self.requests, self.processor_s, self.p99_ms = 0, 0.0, []


@dataclass(frozen=True)
class _Streamed:
    """What streams go through.

    Attributes:
        pids: Whose memory they take.
        request: What begins one.
    """

    name: str
    port: int
    pids: list[int]
    request: bytes


async def measure(report: Report, provider: Source) -> None:
    """Measure requests of one core, and a thousand streams.

    Raises:
        ToolMissing: There is no nginx or no wrk.
    """
    wrk, other = find("wrk"), find("nginx")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pocketbase = stack.enter_context(run_pocketbase(folder))
        runner = f"127.0.0.1:{provider.port}"
        port, headers = free_port(), {"Authorization": pocketbase.new_user().token}
        env = environment(pocketbase, f"http://{runner}", port) | {"LOG_LEVEL": "warning"}
        gateway = await stack.enter_async_context(started(env, folder / "gateway.log"))
        origin = f"http://127.0.0.1:{port}"
        await until_up(origin, gateway)
        proxy = await stack.enter_async_context(nginx(other, pocketbase.url.split("//")[1]))
        relay = await stack.enter_async_context(nginx(other, runner))
        await _compare_requests(
            report,
            wrk,
            _Asked("nginx passes on", f"http://127.0.0.1:{proxy.port}{_PASSED_ON}", proxy.pids),
            [
                _Asked("the gateway passes on", origin + _PASSED_ON, [gateway.pid]),
                *(_Asked(f"GET {path}", origin + path, [gateway.pid], headers) for path in _OWN),
            ],
        )
        await _stream(
            report,
            provider,
            _Streamed("nginx", relay.port, relay.pids, wire.request("GET", "/runs/x/events")),
        )
        await _stream(
            report, provider, _Streamed("the gateway", port, [gateway.pid], _prompt(headers))
        )
    broken, taken = (report.row(GROUP, f"the gateway: {what}") for what in (_BROKEN, _MEMORY))
    report.at_most(f"broken of {_STREAMS} streams through the gateway", 0, broken.typical)
    report.at_most(
        f"the gateway's memory per stream, {_STREAMS} at once", _MOST_KIB, taken.typical, "KiB"
    )


async def _compare_requests(
    report: Report, tool: Tool, baseline: _Asked, others: Sequence[_Asked]
) -> None:
    subjects = (baseline, *others)
    for subject in subjects:
        await subject.turn(tool, seconds=1)
    for subject in subjects:
        subject.forget()  # the connections are there now
    for _ in range(_TURNS):
        for subject in subjects:
            await subject.turn(tool, seconds=_TURN_S)
    for subject in subjects:
        against = baseline.name if subject is not baseline else ""
        row = report.add(
            GROUP,
            f"{subject.name}{_RATE}",
            subject.requests / subject.processor_s,
            baseline=against and f"{against}{_RATE}",
            samples=subject.requests,
        )
        report.add(
            GROUP,
            f"{subject.name}{_P99}",
            min(subject.p99_ms),
            "ms",
            baseline=against and f"{against}{_P99}",
            samples=subject.requests,
        )
        if row.ratio is not None:
            report.at_least(f"{subject.name}: a core's requests, of nginx's", _SHARE, row.ratio)


async def _stream(report: Report, provider: Source, through: _Streamed) -> None:
    """Have all streams open at once, play to them, and see what they take."""
    before = proportional(through.pids)
    group = provider.hold(_STREAMS)
    async with reading("127.0.0.1", through.port, [through.request] * _STREAMS) as streams:
        await streams.until(group.complete())
        await group.play(_PIECES, _INTERVAL_S)
        taken = proportional(through.pids) - before
        group.end()
        await streams.until_over()
    name, delays_ms = through.name, [1000 * delay for delay in streams.delays_s]
    report.add(GROUP, f"{name}: {_MEMORY}", taken / _KIB / _STREAMS, "KiB", samples=_STREAMS)
    report.add(GROUP, f"{name}: {_BROKEN}", len(streams.broken), samples=_STREAMS)
    report.spread(GROUP, f"{name}: delay of a piece, {_STREAMS} streams", delays_ms, "ms")


def _prompt(headers: dict[str, str]) -> bytes:
    fields = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    body = json.dumps({"prompt": "Hi"}).encode()
    return wire.request("POST", "/opencode/stream", headers | fields, body)


def _processor_s(pids: list[int]) -> float:
    """Return the processor time that *pids* have used, their kernel's included."""
    ticks = 0
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        user, system = stat.rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / _TICKS_S
