"""Everything that is not ours goes to PocketBase as it came, and comes back as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from aiohttp import ClientError, hdrs, web
from multidict import CIMultiDict
from yarl import URL

from gateway.keys import PASS_THROUGH, SETTINGS, UPSTREAM
from gateway.streaming.responder import break_off
from runner.contract.headers import REQUEST_ID
from runner.contract.problems import BadRequest, NotFound, PocketBaseUnavailable
from runner.plumbing.context import request_id

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from multidict import CIMultiDictProxy

    from gateway.upstream import Answer

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY_AFTER_S = 2.0
_OURS = "/opencode/"

# RFC 9110 §7.6.1: about this connection, not about the message.
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
# What a client says about where it comes from is not to be believed; `Expect` was answered here.
_NOT_PASSED_ON = _HOP_BY_HOP | frozenset(
    {
        *("expect", "forwarded", "host", "x-real-ip", "x-forwarded-for", "x-forwarded-host"),
        *("x-forwarded-port", "x-forwarded-proto", "x-forwarded-server", "x-request-id"),
    }
)


async def proxy(request: web.Request) -> web.StreamResponse:
    """Pass the request to PocketBase, both bodies as streams.

    Raises:
        NotFound: It is below our prefix all the same, written otherwise.
        PocketBaseUnavailable: There is no answer.
        BadRequest: The request's target is no path, or a header can't be.
    """
    if "%" in request.raw_path and f"{request.path}/".startswith(_OURS):
        raise NotFound
    try:
        if request.body_exists:
            return await _pass_with_body(request)
        return await _pass(request)
    except (ClientError, TimeoutError, OSError) as exc:
        raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S) from exc
    except ValueError as exc:
        raise BadRequest from exc


async def _pass(request: web.Request) -> web.StreamResponse:
    upstream = request.app[UPSTREAM]
    answer = await upstream.ask(request.method, _target(request), _request_headers(request))
    try:
        if answer.content.is_eof() and answer.content.total_bytes:  # all there: in one piece
            return web.Response(
                status=answer.status,
                reason=answer.reason,
                headers=_answer_headers(answer),
                body=answer.content.read_nowait(),
            )
        return await _stream(request, answer)
    finally:
        upstream.done(answer)


async def _pass_with_body(request: web.Request) -> web.StreamResponse:
    answer = await request.app[PASS_THROUGH].request(
        request.method,
        URL(request.app[SETTINGS].pocketbase_url + _target(request), encoded=True),
        headers=_request_headers(request),
        data=request.content.iter_any(),
        allow_redirects=False,
    )
    connection = answer.connection  # None: the answer is whole, the connection given back
    transport = connection.transport if connection is not None else None
    try:
        return await _stream(request, answer)
    finally:
        answer.close()
        # An upload nobody wants the rest of: do not wait until what is buffered has gone out.
        if transport is not None and not request.content.at_eof():
            transport.abort()


async def _stream(request: web.Request, answer: Answer | ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=_answer_headers(answer)
    )
    try:
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
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


def _request_headers(request: web.Request) -> list[tuple[str, str]]:
    return [
        *_without(request.headers, _NOT_PASSED_ON),
        ("X-Forwarded-For", request.remote or ""),
        ("X-Forwarded-Host", request.host),
        ("X-Forwarded-Proto", request.scheme),
        (REQUEST_ID, request_id(request)),
    ]


def _answer_headers(answer: Answer | ClientResponse) -> CIMultiDict[str]:
    return CIMultiDict(_without(answer.headers, _HOP_BY_HOP))


def _without(headers: CIMultiDictProxy[str], dropped: frozenset[str]) -> list[tuple[str, str]]:
    """Return the headers but for those in *dropped* and those that `Connection` names."""
    if hdrs.CONNECTION in headers:
        named = ",".join(headers.getall(hdrs.CONNECTION)).split(",")
        # A message's own framing and sender are not the connection's to take away.
        dropped |= {name.strip().lower() for name in named} - {"content-length", "host", ""}
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped]
