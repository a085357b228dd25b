"""How much later a piece comes through everything than straight from the provider."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import ClientSession, ClientTimeout, TCPConnector

from bench.figures import percentile
from bench.provider import SEPARATOR
from bench.service import service
from tests.support import scripted_agent

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.provider import StampingProvider
    from bench.service import Service

GROUP = "added delay per piece"
_PIECES_PER_S = 200
"""In all: what two cores can carry with the provider and the readers on the same machine."""
_MAX_PER_STREAM_S = 20
_PIECES = 40


async def measure(report: Report, provider: StampingProvider) -> None:
    """Measure real OpenCode at one stream, light agents at one, twenty and two hundred."""
    async with service(provider, RUNNER_SANDBOX="bubblewrap", RUNNER_WARM_POOL="1") as whole:
        await whole.until_warm()
        await _compare(report, provider, whole, streams=1, agent="OpenCode, bubblewrap")
    with tempfile.TemporaryDirectory() as directory:
        light = {
            "RUNNER_SANDBOX": "process",
            "OPENCODE_BIN": str(scripted_agent.install(Path(directory))),
            "RUNNER_WARM_POOL": "0",
            "MAX_CONCURRENT_PROCESSES": "200",
        }
        async with service(provider, **light) as whole:
            for streams in (1, 20, 200):
                await _compare(report, provider, whole, streams=streams, agent="light agents")


async def _compare(
    report: Report, provider: StampingProvider, whole: Service, *, streams: int, agent: str
) -> None:
    per_stream_s = min(_MAX_PER_STREAM_S, _PIECES_PER_S / streams)
    provider.interval_s = 1 / per_stream_s
    provider.pieces = _PIECES if streams == 1 else max(8, _PIECES // max(1, streams // 20))
    provider.expect(streams)
    direct = await _all(*(_direct(provider) for _ in range(streams)))
    provider.expect(streams)
    through = await _all(*(_through(whole) for _ in range(streams)))
    provider.expect(1)
    for word, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        at = f"{streams} × {per_stream_s:.0f}/s, {agent}, {word}"
        base = percentile(direct, share) * 1000
        whole_way = percentile(through, share) * 1000
        report.add(
            GROUP,
            at,
            whole_way - base,
            "ms",
            baseline="the delay of a direct connection",
            against=base,
            samples=len(through),
        )


async def _all(*streams: object) -> list[float]:
    lists = await asyncio.gather(*streams)  # type: ignore[call-overload]
    return [delay for delays in lists for delay in delays]


async def _direct(provider: StampingProvider) -> list[float]:
    url = f"{provider.base_url}/chat/completions"
    delays: list[float] = []
    async with (
        ClientSession(timeout=ClientTimeout(total=120), connector=TCPConnector(limit=0)) as http,
        http.post(url, json={}) as response,
    ):
        async for line in response.content:
            now = time.monotonic_ns()
            _, found, rest = line.decode().partition('"content": "')
            if found:
                delays += _delays(rest.partition('"')[0], now)
    return _steady(delays)


async def _through(whole: Service) -> list[float]:
    delays: list[float] = []
    last: dict[str, object] = {}
    async for last in whole.events():
        now = time.monotonic_ns()
        if last["type"] == "text.delta":
            delays += _delays(str(last["text"]), now)
    if last.get("type") != "run.finished":
        raise RuntimeError(f"a stream broke: {last}")
    return _steady(delays)


def _delays(text: str, now: int) -> list[float]:
    return [(now - int(stamp)) / 1e9 for stamp in text.split(SEPARATOR) if stamp]


def _steady(delays: list[float]) -> list[float]:
    """Leave out the first piece: it has its own measurement."""
    return delays[1:]
