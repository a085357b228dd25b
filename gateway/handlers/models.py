"""`/opencode/models`: what the caller may use."""

from __future__ import annotations

from aiohttp import web

from gateway.keys import IDENTITY, OFFER, USER_KEYS
from gateway.models import UsableModels
from runner.plumbing.context import request_id


async def get_models(request: web.Request) -> web.Response:
    """`GET`: the models this caller may name, and the one that is used otherwise."""
    offered = await request.app[OFFER].models(request_id=request_id(request))
    has_key = offered.operator_key or await request.app[USER_KEYS].is_set(request[IDENTITY])
    usable = UsableModels(
        default=offered.default_with_key if has_key else offered.default_without_key,
        models=[model for model in offered.models if has_key or not model.needs_key],
    )
    return web.Response(
        body=usable.model_dump_json().encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
