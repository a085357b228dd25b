"""`/opencode/runs/{id}/events`: what happened in a run, and what happens now."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from gateway.handlers.input import after_of, caller_of, encoder_of, query_of
from gateway.keys import METRICS, RUNS, SETTINGS
from gateway.models import EventsQuery
from gateway.streaming.responder import stream_events, stream_headers
from runner.contract.headers import RUN_ID

if TYPE_CHECKING:
    from gateway.callers import Caller
    from gateway.streaming.encoders import Encoder


async def get_events(request: web.Request) -> web.StreamResponse:
    """`GET`: from the start or after `Last-Event-ID`, then live.

    204 for readers who have everything: a browser's EventSource then stays away.
    """
    encoder, caller, run_id = encoder_of(request), caller_of(request), request.match_info["id"]
    after = after_of(request, query_of(request, EventsQuery))
    if not await request.app[RUNS].has_more(caller, run_id, after=after):
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={RUN_ID: run_id})
    if request.method == hdrs.METH_HEAD:
        return web.Response(headers={**stream_headers(encoder), RUN_ID: run_id})
    return await send_events(request, caller, run_id, encoder, after=after)


async def send_events(
    request: web.Request, caller: Caller, run_id: str, encoder: Encoder, *, after: int | None
) -> web.StreamResponse:
    """Answer *request* with the run's events after number *after*, to the terminal one."""
    settings = request.app[SETTINGS]
    reading = aclosing(request.app[RUNS].read(caller, run_id, after=after))
    with request.app[METRICS].stream():
        async with reading as batches:
            return await stream_events(
                request,
                batches,
                encoder,
                run_id=run_id,
                heartbeat_s=settings.gateway_heartbeat_s,
                write_timeout_s=settings.gateway_write_timeout_s,
            )
