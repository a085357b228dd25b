"""Everything that is not ours goes to PocketBase as it came, and comes back as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from aiohttp import ClientError, hdrs, web
from multidict import CIMultiDict
from yarl import URL

from gateway.keys import PASS_THROUGH, SETTINGS
from gateway.streaming.responder import break_off
from runner.contract.headers import REQUEST_ID
from runner.contract.problems import BadRequest, PocketBaseUnavailable
from runner.plumbing.context import request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import ClientResponse
    from multidict import CIMultiDictProxy

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY_AFTER_S = 2.0
_OURS = "/opencode"

# RFC 9110 §7.6.1: about this connection, not about the message.
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
# What a client says about where it comes from is not to be believed; `Expect` was answered here.
_REPLACED = frozenset(
    {
        *("expect", "forwarded", "host", "x-real-ip", "x-forwarded-for", "x-forwarded-host"),
        *("x-forwarded-port", "x-forwarded-proto", "x-forwarded-server", "x-request-id"),
    }
)


@web.middleware
async def pass_through(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Pass on what no route of ours is for."""
    return await (proxy if is_passed_on(request) else handler)(request)


def is_passed_on(request: web.Request) -> bool:
    """Whether no route of ours is for *request*."""
    unknown = isinstance(request.match_info.http_exception, web.HTTPNotFound)
    ours = request.path == _OURS or request.path.startswith(f"{_OURS}/")
    return unknown and not ours


async def proxy(request: web.Request) -> web.StreamResponse:
    """Pass the request to PocketBase, both bodies as streams.

    Raises:
        PocketBaseUnavailable: There is no answer.
        BadRequest: The request's target is no path.
    """
    base = request.app[SETTINGS].pocketbase_url
    try:
        upstream = await request.app[PASS_THROUGH].request(
            request.method,
            URL(base + _target(request), encoded=True),
            headers=_request_headers(request),
            data=request.content.iter_any() if request.body_exists else None,
            allow_redirects=False,
        )
    except (ClientError, TimeoutError, OSError) as exc:
        raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S) from exc
    connection = upstream.connection  # None: the answer is whole, the connection given back
    transport = connection.transport if connection is not None else None
    try:
        return await _answer(request, upstream)
    finally:
        upstream.close()
        # An upload nobody wants the rest of: do not wait until what is buffered has gone out.
        if transport is not None and request.body_exists and not request.content.at_eof():
            transport.abort()


async def _answer(request: web.Request, upstream: ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(
        status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers)
    )
    await response.prepare(request)
    try:
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    except (ClientError, ConnectionError, TimeoutError) as exc:
        # Half an answer must not look like a whole one.
        log.info("pass_through_broken", error=type(exc).__name__)
        return break_off(request, response)
    return response


def _target(request: web.Request) -> str:
    """Return path and query, byte for byte; bytes that may not stand in a URL are escaped."""
    raw = request.raw_path
    if not raw.startswith("/"):  # `GET http://host/path`, as to a proxy, or `OPTIONS *`
        url = URL(raw, encoded=True)
        if not url.absolute:
            raise BadRequest
        raw = url.raw_path_qs
    if raw.isascii():
        return raw
    return quote(raw.encode(errors="surrogateescape"), safe=_ASCII_PRINTABLE)


_ASCII_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


def _request_headers(request: web.Request) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    for name in _REPLACED:
        headers.popall(name, None)
    headers["X-Forwarded-For"] = request.remote or ""
    headers["X-Forwarded-Host"] = request.host
    headers["X-Forwarded-Proto"] = request.scheme
    headers[REQUEST_ID] = request_id(request)
    return headers


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers that are about the message, without those `Connection` names."""
    named = {
        name.strip().lower()
        for value in headers.getall(hdrs.CONNECTION, [])
        for name in value.split(",")
    }
    # A message's own framing and sender are not the connection's to take away.
    dropped = _HOP_BY_HOP | (named - {"content-length", "host", ""})
    return CIMultiDict((n, v) for n, v in headers.items() if n.lower() not in dropped)
