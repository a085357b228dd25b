"""A sandbox's door: a listening socket, served with the grant of the run that has the sandbox.

Where the socket is the sandbox's alone, it is the identity; elsewhere a token has to be shown.
A door without a grant refuses everything, and a closed one answers nobody: its connections end
with it.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from runner.credential_proxy.body import BodyRefused, checked
from runner.credential_proxy.doorkeeper import keep_door
from runner.credential_proxy.upstreams import PATHS
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterator, Mapping

    from runner.credential_proxy.grants import Grant
    from runner.egress.tunnel import Egress

log: structlog.stdlib.BoundLogger = structlog.get_logger()

BASE_PATH = "/v1"
_MAX_BODY_BYTES = 16 << 20
_CALLS_AT_ONCE = 4  # OpenCode makes one; each may hold a body in memory
_CLOSE_TIMEOUT_S = 0.5


class Door:
    """What a listening socket is served with."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._grant: Grant | None = None
        self._log_context: dict[str, Any] = {}
        self._answering = asyncio.Semaphore(_CALLS_AT_ONCE)

    @contextmanager
    def granted(self, grant: Grant) -> Iterator[None]:
        """Serve *grant*, and nothing else, while the block runs.

        What is logged about its requests bears the log context of the caller.
        """
        if self._grant is not None:
            raise RuntimeError("a door serves one grant at a time")
        self._grant, self._log_context = grant, structlog.contextvars.get_contextvars()
        try:
            yield
        finally:
            self._grant, self._log_context = None, {}

    @property
    def log_context(self) -> Mapping[str, Any] | None:
        """What to log about callers; None: nobody is let in."""
        return self._log_context if self._grant is not None else None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        async with self._answering:
            return await self._checked(request)

    async def _checked(self, request: web.Request) -> web.StreamResponse:
        if self._token is not None and not _shows_token(request, self._token):
            log.warning("door_refused", reason="token")
            return refusal(HTTPStatus.UNAUTHORIZED, "this door needs the run's token")
        if self._grant is None:
            log.warning("door_refused", reason="no grant")
            return refusal(HTTPStatus.FORBIDDEN, "not offered here")
        with structlog.contextvars.bound_contextvars(**self._log_context):
            return await _serve(request, self._grant)


@asynccontextmanager
async def open_door(
    door: socket.socket, *, token: str | None, egress: Egress | None = None
) -> AsyncIterator[Door]:
    """Serve *door* while the block runs; with *egress*, let `CONNECT` through it too.

    With a *token*, callers must show it.
    """
    served = Door(token)
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", served.serve)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE_TIMEOUT_S
    )
    await runner.setup()
    try:
        keeping = keep_door(door, egress, _server_of(runner), lambda: served.log_context)
        async with keeping:
            yield served
    finally:
        await finish(runner.cleanup())


def _server_of(runner: web.AppRunner) -> web.Server:
    """Return what makes a protocol for each connection; there is one after `setup`."""
    if runner.server is None:
        raise RuntimeError("the door was not set up")
    return runner.server


async def _serve(request: web.Request, grant: Grant) -> web.StreamResponse:
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
