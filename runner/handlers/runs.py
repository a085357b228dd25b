"""Runs over HTTP: NDJSON of events, as they happen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from runner.contract.headers import NDJSON, RUN_ID
from runner.contract.requests import StartRun
from runner.contract.wire import encode_event
from runner.keys import RUNS
from runner.plumbing.parsing import read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runner.contract.events import RunEvent

_HEARTBEAT = b"\n"
_HEARTBEAT_S = 5.0


async def start_run(request: web.Request) -> web.StreamResponse:
    """POST /runs: carry out a run and stream its events; the caller leaving cancels it."""
    start = await read_body(request, StartRun)
    async with request.app[RUNS].open(start) as events:
        response = web.StreamResponse(headers={"Content-Type": NDJSON, RUN_ID: start.run_id})
        await response.prepare(request)
        await _write(response, events)
        await response.write_eof()
        return response


async def _write(response: web.StreamResponse, events: AsyncIterator[RunEvent]) -> None:
    """Write every event at once, and a blank line when there is none for a while."""
    upcoming = asyncio.ensure_future(_next(events))
    try:
        while True:
            ready, _ = await asyncio.wait({upcoming}, timeout=_HEARTBEAT_S)
            if not ready:
                await response.write(_HEARTBEAT)
                continue
            event = upcoming.result()
            if event is None:
                return
            upcoming = asyncio.ensure_future(_next(events))
            await response.write(encode_event(event))
    finally:
        upcoming.cancel()
        await asyncio.wait({upcoming})


async def _next(events: AsyncIterator[RunEvent]) -> RunEvent | None:
    return await anext(events, None)
