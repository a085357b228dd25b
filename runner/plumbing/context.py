"""What belongs to one request: its id and its language, bound to every log line."""

from __future__ import annotations

import logging
import random
import re
import time
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from runner.contract.headers import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

    OnEnd = Callable[[web.Request, int], None]

_REQUEST_ID = web.RequestKey("request_id", str)
_LEFT = 499
_WELL_FORMED = re.compile(r"^[A-Za-z0-9._-]{8,64}$")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def request_id(request: web.BaseRequest) -> str:
    """Return the id of *request*: the caller's, if well-formed, else a new one."""
    known = request.get(_REQUEST_ID)
    if known is None:
        given = request.headers.get(REQUEST_ID, "")
        known = given if given and _WELL_FORMED.fullmatch(given) else _new_id()
        request[_REQUEST_ID] = known
    return known


def _new_id() -> str:
    return f"{random.getrandbits(64):016x}"


def request_context(on_end: OnEnd | None = None) -> Middleware:
    """Return the middleware that binds the request id to the logs and logs each request's end.

    Neither the query nor a body is logged: prompts and tokens stand there.

    Args:
        on_end: Is told of each end: the request and its status, 499 where the caller left before
            the answer was whole.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        status = _LEFT
        # aiohttp handles each request in a task of its own: nothing to undo.
        structlog.contextvars.bind_contextvars(request_id=request_id(request))
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as exc:
            status = exc.status
            raise
        else:
            return response
        finally:
            if on_end is not None:
                on_end(request, status)
            if log.is_enabled_for(logging.DEBUG):
                log.debug(
                    "request_ended",
                    method=request.method,
                    path=request.path,
                    status=status,
                    duration_s=round(time.monotonic() - started, 4),
                )

    return middleware


async def send_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler for `on_response_prepare`: tell the caller the id, streams included."""
    response.headers[REQUEST_ID] = request_id(request)
