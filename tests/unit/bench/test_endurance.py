"""What `make endurance` takes for growth, and what it makes of the callers' luck."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import ClientSession, web

from bench.callers import Callers, Heard
from bench.endurance import Sample, verdict
from bench.steady import Tolerance, slope, trend
from bench.streams import stamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOLERANCE = Tolerance(share=0.05, least=1.0)


def test_what_settles_in_the_first_half_does_not_count() -> None:
    """Nor does a single peak."""
    points = [(float(s), 100 - 50 * math.exp(-s / 5)) for s in range(0, 100, 5)]
    points[-2] = (points[-2][0], 500.0)

    went = trend(points, TOLERANCE)

    assert went.is_steady
    assert abs(went.usual - 100) < 1


def test_what_goes_on_growing_is_told() -> None:
    """However little it is at a time."""
    went = trend([(float(s), 100 + s * 0.5 + s % 3) for s in range(100)], TOLERANCE)

    assert not went.is_steady
    assert 20 < went.growth < 30


def test_of_one_point_there_is_no_slope() -> None:
    """It is no growth, either."""
    assert slope([(1.0, 5.0)]) == 0.0


def sample(at_s: float, **changed: float) -> Sample:
    usual = dict.fromkeys(("gateway_fds", "runner_fds"), 40.0)
    usual |= dict.fromkeys(("gateway_mib", "runner_mib"), 50.0)
    usual |= dict.fromkeys(("first_p50_ms", "first_p95_ms", "piece_p50_ms", "piece_p95_ms"), 9.0)
    return Sample(at_s=at_s, **(usual | changed))


def test_the_verdict_names_what_grew_and_what_was_not_kept() -> None:
    """And nothing else."""
    samples = [sample(10.0 * n, runner_mib=50 + 3.0 * n) for n in range(20)]
    heard = Heard(first_s=[0.1], delays_s=[0.01], kept=8, broken=2)
    heard.ends["run.finished"] = 7

    report = verdict(samples, heard, 3)

    missed = [target.name for target in report.targets if not target.met]
    assert len(missed) == 2
    assert missed[0].startswith("growth of the runner, usually")
    assert missed[1].startswith("kept `Retry-After`")


@asynccontextmanager
async def busy_service(refusals: int) -> AsyncIterator[tuple[ClientSession, list[float]]]:
    """Yield a session with one that refuses so often before it lets in, and when it was asked."""
    asked: list[float] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        asked.append(time.monotonic())
        if len(asked) <= refusals:
            return web.Response(status=503, headers={"Retry-After": "0"})
        response = web.StreamResponse()
        await response.prepare(request)
        for event in (
            {"type": "run.started", "queued_s": 0.0},
            {"type": "text.delta", "text": stamp()},
            {"type": "text.delta", "text": stamp()},
            {"type": "run.finished"},
        ):
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    app = web.Application()
    app.router.add_post("/opencode/stream", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as http:
        yield http, asked
    await runner.cleanup()


async def test_who_is_refused_comes_back_and_the_promises_are_counted() -> None:
    """The first is broken by another refusal, the second one is kept."""
    async with busy_service(refusals=2) as (http, asked), asyncio.timeout(20):
        callers = Callers(http, seed=1)
        calling = asyncio.create_task(callers.call("token"))
        heard = Heard()
        while not heard.ends:
            await asyncio.sleep(0.01)
            heard.add(callers.take())
        calling.cancel()
        await asyncio.wait({calling})

    assert len(asked) >= 3
    assert (heard.kept, heard.broken, heard.kept_share) == (1, 1, 0.5)
    assert heard.promised_s == [0.0, 0.0]
    assert len(heard.first_s) == len(heard.delays_s) == 1
    assert dict(heard.ends) == {"run.finished": 1}
