"""`/opencode/stream`: a prompt in, everything that happens out."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from gateway.keys import IDENTITY, RUNS, SETTINGS
from gateway.language import language_of
from gateway.models import StreamRequest
from gateway.runs import Prompt
from gateway.streaming.encoders import encoder_for
from gateway.streaming.responder import stream_events, stream_headers
from runner.contract.problems import (
    BadRequest,
    InvalidField,
    PromptRequired,
    PromptTooLarge,
    SessionNotFound,
    UnsupportedMediaType,
)
from runner.plumbing.context import request_id
from runner.plumbing.parsing import parse, read_body

if TYPE_CHECKING:
    from gateway.streaming.encoders import Encoder


async def get_stream(request: web.Request) -> web.StreamResponse:
    """`GET`: the prompt in the query. `HEAD` checks it and starts nothing."""
    encoder = _encoder(request)
    asked = parse(_query(request), StreamRequest)
    prompt = _checked(request, asked)
    if request.method == hdrs.METH_HEAD:
        return web.Response(status=HTTPStatus.OK, headers=stream_headers(encoder))
    return await _run(request, prompt, encoder)


async def post_stream(request: web.Request) -> web.StreamResponse:
    """`POST`: the prompt in a JSON body."""
    encoder = _encoder(request)
    encoded = request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity"
    if request.content_type != "application/json" or encoded:
        raise UnsupportedMediaType
    try:
        asked = await read_body(request, StreamRequest)
    except web.HTTPRequestEntityTooLarge as exc:
        raise _too_large(request) from exc
    return await _run(request, _checked(request, asked), encoder)


async def _run(request: web.Request, prompt: Prompt, encoder: Encoder) -> web.StreamResponse:
    settings = request.app[SETTINGS]
    opened = request.app[RUNS].open(request[IDENTITY], prompt, request_id=request_id(request))
    async with opened as run:
        return await stream_events(
            request,
            run.batches,
            encoder,
            run_id=run.id,
            heartbeat_s=settings.gateway_heartbeat_s,
            write_timeout_s=settings.gateway_write_timeout_s,
        )


def _encoder(request: web.Request) -> Encoder:
    return encoder_for(
        ",".join(request.headers.getall(hdrs.ACCEPT, [])),
        user_name=request[IDENTITY].name,
        language=language_of(request),
    )


def _query(request: web.Request) -> dict[str, str]:
    """Return the query; aiohttp's own reading would let bytes pass that are no UTF-8."""
    try:
        pairs = parse_qsl(
            request.rel_url.raw_query_string,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=20,
        )
        "".join(name + value for name, value in pairs).encode()
    except ValueError as exc:
        raise BadRequest from exc
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = sorted({name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1})
        raise InvalidField(fields=", ".join(f"{name[:64]} (given twice)" for name in repeated))
    return values


def _checked(request: web.Request, asked: StreamRequest) -> Prompt:
    if asked.session_id is not None:
        raise SessionNotFound
    text = asked.prompt or ""
    if not text.strip():
        raise PromptRequired
    if len(text.encode()) > request.app[SETTINGS].gateway_max_prompt_bytes:
        raise _too_large(request)
    return Prompt(text=text, model=asked.model, language=language_of(request))


def _too_large(request: web.Request) -> PromptTooLarge:
    return PromptTooLarge(limit_bytes=request.app[SETTINGS].gateway_max_prompt_bytes)
