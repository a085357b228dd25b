"""HTTP connections whose broken requests are answered like every other bad input."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web

from runner.contract.problems import MalformedRequest, ServiceError
from runner.plumbing.errors import problem

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping


def protocol_factory(
    runner: web.AppRunner, language: str, options: Mapping[str, Any]
) -> Callable[[], asyncio.Protocol]:
    """Return what makes the protocol of each connection to *runner*'s application.

    Args:
        runner: Already set up; it ends the connections when it is cleaned up.
        language: Of the answers: a broken request has no headers to choose by.
        options: Of aiohttp's request handler, the same that *runner* was given.
    """
    server = runner.server
    if server is None:
        raise RuntimeError("the application was not set up")

    class Connection(web.RequestHandler):
        """aiohttp answers what its parser refuses in plain text; this answers a problem."""

        def handle_error(
            self,
            request: web.BaseRequest,
            status: int = 500,
            exc: BaseException | None = None,
            message: str | None = None,
        ) -> web.StreamResponse:
            """See `aiohttp.web.RequestHandler.handle_error`."""
            # Logs, and raises where bytes are out already.
            super().handle_error(request, status, exc, message)
            broken = status < HTTPStatus.INTERNAL_SERVER_ERROR
            answer = problem(request, MalformedRequest() if broken else ServiceError(), language)
            answer.force_close()
            # Here nobody takes aiohttp's own off again, with its version and Python's.
            answer.headers[hdrs.SERVER] = "opencode-multiuser"
            return answer

    return lambda: Connection(server, loop=server._loop, **options)  # noqa: SLF001
