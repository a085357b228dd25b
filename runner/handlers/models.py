"""The models on offer."""

from __future__ import annotations

from aiohttp import web

from runner.keys import CATALOGUE


async def list_models(request: web.Request) -> web.Response:
    """GET /models: what a run may name."""
    return web.json_response(text=request.app[CATALOGUE].list().model_dump_json())
