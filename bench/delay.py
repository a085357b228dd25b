"""How much later a piece comes through everything than straight from the provider."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import wire
from bench.agents import light_agents
from bench.figures import percentile
from bench.service import LIGHT, service
from bench.source import DONE
from bench.streams import reading

if TYPE_CHECKING:
    from bench.figures import Report
    from bench.service import Service
    from bench.source import Source

GROUP = "added delay per piece"
_TURNS = 4
_TURN_S = 2.0
_PER_STREAM_S = {1: 20.0, 20: 20.0, 200: 2.0}
"""Pieces a second of each stream: together what two cores can carry, which are the provider's,
the readers' and the agents' too."""
_LATER_MS = 10.0


async def measure(report: Report, provider: Source) -> None:
    """Measure real OpenCode at one stream, light agents at one, twenty and two hundred."""
    async with service(provider, RUNNER_SANDBOX="bubblewrap", RUNNER_WARM_POOL="1") as whole:
        await whole.until_warm()
        await _compare(report, provider, whole, streams=1, agent="OpenCode")
    with tempfile.TemporaryDirectory() as directory:
        async with light_agents(Path(directory)) as agent:
            settings = LIGHT | {"OPENCODE_BIN": str(agent), "MAX_CONCURRENT_PROCESSES": "200"}
            async with service(provider, **settings) as whole:
                for streams in _PER_STREAM_S:
                    await _compare(report, provider, whole, streams=streams, agent="light agents")


async def _compare(
    report: Report, provider: Source, whole: Service, *, streams: int, agent: str
) -> None:
    """Have both ways open, and send pieces over the one and the other in turns."""
    per_stream_s = _PER_STREAM_S[streams]
    asked = [wire.request("POST", "/v1/chat/completions", body=b"{}")] * streams
    direct_group = provider.hold(streams)
    async with reading("127.0.0.1", provider.port, asked, end=DONE) as direct:
        await direct.until(direct_group.complete())
        group = provider.hold(streams)
        async with whole.streams(streams) as through:
            await through.until(group.complete())
            for _ in range(_TURNS):
                for played in (direct_group, group):
                    await played.play(int(_TURN_S * per_stream_s), 1 / per_stream_s)
            for played in (direct_group, group):
                played.end()
            for reads in (direct, through):
                await reads.until_over()
                reads.check()
    await whole.until_idle()
    load = f"{streams} × {per_stream_s:.0f}/s"
    usual = percentile(direct.delays_s, 0.5)
    baseline = f"{load}, {agent}: direct"
    report.spread(GROUP, baseline, [1000 * delay for delay in direct.delays_s], "ms")
    added = report.spread(
        GROUP,
        f"{load}, {agent}: added",
        [1000 * (delay - usual) for delay in through.delays_s],
        "ms",
        baseline=baseline,
    )
    if streams == max(_PER_STREAM_S) and added.p95 is not None:
        report.at_most(
            f"95 % of pieces at {streams} streams, later than direct", _LATER_MS, added.p95, "ms"
        )
