"""The routes that are ours; everything else is PocketBase's (`handlers/proxy.py`).

What stands below `/opencode/` needs a token, unless `auth/middleware.py` lists it as public.
"""

from __future__ import annotations

from aiohttp import web

from gateway.handlers.health import get_health, get_test
from gateway.handlers.key import delete_key, get_key, put_key
from gateway.handlers.models import get_models
from gateway.handlers.stream import get_stream, post_stream

ROUTES = (
    web.get("/test", get_test),
    web.get("/opencode/health", get_health),
    web.get("/opencode/stream", get_stream),
    web.post("/opencode/stream", post_stream),
    web.get("/opencode/models", get_models),
    web.get("/opencode/key", get_key),
    web.put("/opencode/key", put_key),
    web.delete("/opencode/key", delete_key),
)
