"""`/opencode/stream`: a prompt in, everything that happens out."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from gateway.handlers.events import send_events
from gateway.handlers.input import (
    after_of,
    caller_of,
    encoder_of,
    prompt_in_body,
    prompt_of,
    query_of,
)
from gateway.keys import RUNS
from gateway.models import StreamRequest
from gateway.streaming.responder import stream_headers

if TYPE_CHECKING:
    from gateway.callers import Prompt
    from gateway.streaming.encoders import Encoder


async def get_stream(request: web.Request) -> web.StreamResponse:
    """`GET`: the prompt in the query. `HEAD` checks it and starts nothing."""
    encoder = encoder_of(request)
    prompt = prompt_of(request, query_of(request, StreamRequest))
    if request.method == hdrs.METH_HEAD:
        return web.Response(status=HTTPStatus.OK, headers=stream_headers(encoder))
    return await _run(request, prompt, encoder)


async def post_stream(request: web.Request) -> web.StreamResponse:
    """`POST`: the prompt in a JSON body."""
    encoder = encoder_of(request)
    return await _run(request, await prompt_in_body(request), encoder)


async def _run(request: web.Request, prompt: Prompt, encoder: Encoder) -> web.StreamResponse:
    """Start the run and stream it; the caller leaving for good ends it."""
    runs, caller, after = request.app[RUNS], caller_of(request), after_of(request)
    run_id: str | None
    if after is not None and prompt.idempotency_key is None:
        # A browser's EventSource comes back by itself to where it started: no second run.
        run_id = await runs.come_back(caller, prompt)
    else:
        run_id = await runs.start(caller, prompt, attached=True)
    if run_id is None or not (after is None or await runs.has_more(caller, run_id, after=after)):
        return web.Response(status=HTTPStatus.NO_CONTENT)  # it stays away then
    return await send_events(request, caller, run_id, encoder, after=after)
