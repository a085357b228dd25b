"""One run's door: a listening socket served with one run's grant.

Where the socket is the run's alone, it is the identity; elsewhere the run token has to be
shown. A closed door answers nobody: its connections end with it.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from runner.credential_proxy.body import BodyRefused, checked
from runner.credential_proxy.doorkeeper import keep_door
from runner.credential_proxy.upstreams import PATHS
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from runner.credential_proxy.grants import Grant
    from runner.egress.tunnel import Egress

log: structlog.stdlib.BoundLogger = structlog.get_logger()

BASE_PATH = "/v1"
_MAX_BODY_BYTES = 16 << 20
_CALLS_AT_ONCE = 4  # OpenCode makes one; each may hold a body in memory
_CLOSE_TIMEOUT_S = 0.5


@asynccontextmanager
async def open_door(
    door: socket.socket, grant: Grant, *, token_needed: bool, egress: Egress | None = None
) -> AsyncIterator[None]:
    """Serve *door* for *grant* while the block runs; with *egress*, let `CONNECT` through too."""

    answering = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def serve(request: web.Request) -> web.StreamResponse:
        async with answering:
            return await _serve(request, grant, token_needed=token_needed)

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE_TIMEOUT_S
    )
    await runner.setup()
    try:
        async with keep_door(door, egress, _server_of(runner)):
            yield
    finally:
        await finish(runner.cleanup())


def _server_of(runner: web.AppRunner) -> web.Server:
    """Return what makes a protocol for each connection; there is one after `setup`."""
    if runner.server is None:
        raise RuntimeError("the door was not set up")
    return runner.server


async def _serve(request: web.Request, grant: Grant, *, token_needed: bool) -> web.StreamResponse:
    if token_needed and not _shows_token(request, grant.token):
        log.warning("door_refused", reason="token")
        return refusal(HTTPStatus.UNAUTHORIZED, "this door needs the run's token")
    allowed = BASE_PATH + PATHS[grant.upstream.api]
    if (request.method, request.path) != ("POST", allowed):
        log.info("door_refused", reason="path", method=request.method)
        return refusal(HTTPStatus.FORBIDDEN, "not offered here")
    try:
        call = checked(await request.read(), api=grant.upstream.api, model=grant.model)
    except BodyRefused as exc:
        log.info("door_refused", reason=str(exc))
        return refusal(exc.status, str(exc))
    if grant.failure.done():
        grant.asked_again.set()
        return refusal(HTTPStatus.BAD_REQUEST, "the run has ended")
    grant.sign_of_life()
    return await grant.upstream.answer(request, call, grant)


def _shows_token(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(given.encode(), token.encode())


def refusal(status: HTTPStatus, message: str) -> web.Response:
    """Return an error in OpenAI's shape.

    OpenCode retries 408, 409, 429, 5xx and every message that sounds like one of them
    ("overloaded", "500", "try again later", …); *message* must not.
    """
    return web.json_response(
        {"error": {"message": message, "type": "invalid_request_error", "code": None}},
        status=status,
    )
