"""Counts requests, whatever becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.keys import METRICS

if TYPE_CHECKING:
    from aiohttp import web


def count_request(request: web.Request, status: int) -> None:
    """Count a request that has ended with *status*."""
    request.app[METRICS].request_ended(_route_of(request), status)


def _route_of(request: web.Request) -> str:
    """Return the pattern of *request*'s route, of which there are few: never its path."""
    resource = request.match_info.route.resource
    if resource is None:
        return "unknown"
    return resource.name or resource.canonical
