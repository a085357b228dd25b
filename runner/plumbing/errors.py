"""The one place where exceptions become HTTP answers, and where failures are logged."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from runner.contract import problems
from runner.contract.headers import PROBLEM_JSON
from runner.plumbing.context import request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Middleware

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_AIOHTTP_ERRORS: dict[int, type[problems.ServiceError]] = {
    HTTPStatus.NOT_FOUND: problems.NotFound,
    HTTPStatus.METHOD_NOT_ALLOWED: problems.MethodNotAllowed,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: problems.BodyTooLarge,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: problems.UnsupportedMediaType,
}


def problem_errors(
    language_of: Callable[[web.Request], str],
) -> Middleware:
    """Return a middleware that answers failures as problems, in the caller's language."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as exc:  # aiohttp's own: 404, 405, 413 …
            if exc.status < HTTPStatus.BAD_REQUEST:
                raise
            failure = _of_aiohttp(exc)
            response = problem(request, failure, language_of(request))
            if "Allow" in exc.headers:
                response.headers["Allow"] = exc.headers["Allow"]
        except problems.ServiceError as exc:
            level = "warning" if exc.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "info"
            getattr(log, level)(
                "request_refused", code=exc.code, status=exc.status, cause=_cause(exc)
            )
            response = problem(request, exc, language_of(request))
        except Exception as exc:
            if response_began(request):
                raise
            log.exception("request_crashed", error=type(exc).__name__)
            response = problem(request, problems.ServiceError(), language_of(request))
        return response

    return middleware


def problem(
    request: web.BaseRequest, failure: problems.ServiceError, language: str
) -> web.Response:
    """Return *failure* as `application/problem+json`."""
    headers = {"Cache-Control": "no-store", "Content-Language": language}
    if failure.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(failure.retry_after_s)))
    if failure.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="PocketBase"'
    return web.Response(
        body=json.dumps(failure.to_problem(language, request_id(request)), ensure_ascii=False),
        status=failure.status,
        content_type=PROBLEM_JSON,
        charset="utf-8",
        headers=headers,
    )


def response_began(request: web.Request) -> bool:
    """Whether bytes of a response are out, so that no status can be sent any more."""
    prepared = getattr(request, "_prepared_response", None)
    return prepared is not None


def _of_aiohttp(exc: web.HTTPException) -> problems.ServiceError:
    known = _AIOHTTP_ERRORS.get(exc.status)
    if known is problems.BodyTooLarge:
        limit = getattr(exc, "max_size", None)
        return problems.BodyTooLarge(**({"limit_bytes": limit} if limit else {}))
    if known is not None:
        return known()
    return problems.ForeignProblem(
        exc.status, "internal" if exc.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "bad-request"
    )


def _cause(exc: BaseException) -> str | None:
    """Name what is behind *exc* without its text, which may quote foreign bytes."""
    return type(exc.__cause__).__name__ if exc.__cause__ is not None else None
