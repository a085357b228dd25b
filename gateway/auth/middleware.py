"""Put the caller's identity on the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from gateway.auth.tokens import ANONYMOUS, token_of
from gateway.keys import IDENTITY, SETTINGS, VERIFIER
from runner.contract.problems import TokenRequired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.auth.tokens import Identity

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PREFIX = "/opencode/"
PUBLIC = frozenset(
    {
        *("/opencode/health", "/opencode/openapi.json"),
        *("/opencode/docs", "/opencode/docs/{file}"),
    }
)
"""What stands below the prefix and is for everybody; whatever else comes there is protected."""


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Learn who calls below `/opencode/`; bind the user to the request and to its log lines.

    Raises:
        TokenRequired: No token, and anonymous callers are not allowed.
        TokenInvalid: A token that is not accepted.
        PocketBaseUnavailable: Nobody can tell.
    """
    # By the route that was found, not by how its path was written. Where none was found (404,
    # 405) everybody may know.
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else ""
    if not path.startswith(PREFIX) or path in PUBLIC:
        return await handler(request)
    identity = await _identify(request)
    request[IDENTITY] = identity
    # aiohttp handles each request in a task of its own: nothing to undo.
    structlog.contextvars.bind_contextvars(user_id=identity.user_id)
    return await handler(request)


async def _identify(request: web.Request) -> Identity:
    token = token_of(request.headers.get("Authorization"))
    if token is not None:
        return await request.app[VERIFIER].verify(token)
    if request.app[SETTINGS].gateway_allow_anonymous:
        return ANONYMOUS
    raise TokenRequired
