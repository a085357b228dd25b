"""What callers send, read and checked: who they are, what they want, in which format."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from gateway.auth.tokens import token_of
from gateway.callers import Caller, Prompt
from gateway.keys import IDENTITY, SETTINGS
from gateway.language import language_of
from gateway.models import EventsQuery, StreamRequest
from gateway.streaming.encoders import encoder_for
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
    from typing import TypeVar

    from pydantic import BaseModel

    from gateway.streaming.encoders import Encoder

    Model = TypeVar("Model", bound=BaseModel)

IDEMPOTENCY_KEY = "Idempotency-Key"
LAST_EVENT_ID = "Last-Event-ID"
_MAX_IDEMPOTENCY_KEY_CHARS = 255


def caller_of(request: web.Request) -> Caller:
    """Return who asks, as the use cases want to know it."""
    return Caller(
        identity=request[IDENTITY],
        token=token_of(request.headers.get(hdrs.AUTHORIZATION)) or "",
        request_id=request_id(request),
        language=language_of(request),
    )


def encoder_of(request: web.Request) -> Encoder:
    """Return the encoder for the format the caller likes best.

    Raises:
        NotAcceptable: They like none that there is.
    """
    return encoder_for(
        ",".join(request.headers.getall(hdrs.ACCEPT, [])),
        user_name=request[IDENTITY].name,
        language=language_of(request),
    )


def query_of(request: web.Request, model: type[Model]) -> Model:
    """Return the query as *model*; aiohttp's own reading would let bytes pass that are no UTF-8.

    Raises:
        BadRequest: It is no text, or has too many fields.
        UnknownField: A field that *model* does not have.
        InvalidField: A field that is given twice, or can't be.
    """
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
    return parse(values, model)


async def body_of(request: web.Request, model: type[Model]) -> Model:
    """Return the JSON body as *model*; see `read_body` for what else may be wrong with it.

    Raises:
        UnsupportedMediaType: It is not sent as plain `application/json`.
    """
    encoded = request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity"
    if request.content_type != "application/json" or encoded:
        raise UnsupportedMediaType
    return await read_body(request, model)


async def prompt_in_body(request: web.Request) -> Prompt:
    """Return the prompt of a JSON body; see `prompt_of` and `body_of` for the errors."""
    try:
        asked = await body_of(request, StreamRequest)
    except web.HTTPRequestEntityTooLarge as exc:
        raise _too_large(request) from exc
    return prompt_of(request, asked)


def prompt_of(request: web.Request, asked: StreamRequest) -> Prompt:
    """Return what the caller wants.

    Raises:
        SessionNotFound: They want to go on with a session.
        PromptRequired: There is no prompt, or a blank one.
        PromptTooLarge: It exceeds the limit.
        InvalidField: The idempotency key can't be.
    """
    if asked.session_id is not None:
        raise SessionNotFound
    text = asked.prompt or ""
    if not text.strip():
        raise PromptRequired
    if len(text.encode()) > request.app[SETTINGS].gateway_max_prompt_bytes:
        raise _too_large(request)
    return Prompt(
        text=text,
        model=asked.model,
        permission=asked.permission,
        idempotency_key=_idempotency_key(request),
    )


def after_of(request: web.Request, asked: EventsQuery | None = None) -> int | None:
    """Return the number of the last event the caller has: the header's, else the query's.

    Raises:
        InvalidField: The header is no number of an event.
    """
    given = request.headers.get(LAST_EVENT_ID, "").strip()
    if not given:
        return asked.after if asked is not None else None
    if not (given.isascii() and given.isdecimal()):
        raise InvalidField(fields=f"{LAST_EVENT_ID} (must be the number of an event)")
    return parse({"after": given}, EventsQuery).after


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_IDEMPOTENCY_KEY_CHARS or not all("!" <= c <= "~" for c in key):
        raise InvalidField(
            fields=f"{IDEMPOTENCY_KEY} (must be 1 to {_MAX_IDEMPOTENCY_KEY_CHARS} characters of "
            "ASCII without spaces)"
        )
    return key


def _too_large(request: web.Request) -> PromptTooLarge:
    return PromptTooLarge(limit_bytes=request.app[SETTINGS].gateway_max_prompt_bytes)
