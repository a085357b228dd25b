"""Counts requests, whatever becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.keys import METRICS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LEFT = 499
"""As in the log: the caller left before the answer was whole."""


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count every request, however it ends."""
    status = _LEFT
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as exc:
        status = exc.status
        raise
    else:
        return response
    finally:
        request.app[METRICS].request_ended(_route_of(request), status)


def _route_of(request: web.Request) -> str:
    """Return the pattern of *request*'s route, of which there are few: never its path."""
    resource = request.match_info.route.resource
    if resource is None:
        return "unknown"
    return resource.name or resource.canonical
