"""Health of the runner."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from runner.keys import STATUS


async def health(request: web.Request) -> web.Response:
    """GET /health: every part's state; 503 when no run could be carried out."""
    state = request.app[STATUS].look()
    return web.json_response(
        text=state.model_dump_json(),
        status=HTTPStatus.SERVICE_UNAVAILABLE if state.status == "down" else HTTPStatus.OK,
    )
