"""The routes that are ours, and the one for everything else, which is PocketBase's.

What stands below `/opencode/` needs a token, unless `auth/middleware.py` lists it as public.
"""

from __future__ import annotations

from aiohttp import web

from gateway.handlers.docs import get_docs, get_docs_file, get_openapi
from gateway.handlers.events import get_events
from gateway.handlers.health import get_health, get_test
from gateway.handlers.key import delete_key, get_key, put_key
from gateway.handlers.models import get_models
from gateway.handlers.proxy import proxy
from gateway.handlers.runs import (
    delete_run,
    get_run,
    get_runs,
    get_usage,
    post_permission,
    post_run,
)
from gateway.handlers.stream import get_stream, post_stream

_RUN = "/opencode/runs/{id:[a-z0-9]{15}}"

ROUTES = (
    web.get("/test", get_test),
    web.get("/opencode/health", get_health),
    web.get("/opencode/stream", get_stream),
    web.post("/opencode/stream", post_stream),
    web.post("/opencode/runs", post_run),
    web.get("/opencode/runs", get_runs),
    web.get(_RUN, get_run),
    web.delete(_RUN, delete_run),
    web.get(f"{_RUN}/events", get_events),
    web.post(f"{_RUN}/permissions/{{pid}}", post_permission),
    web.get("/opencode/usage", get_usage),
    web.get("/opencode/models", get_models),
    web.get("/opencode/key", get_key),
    web.put("/opencode/key", put_key),
    web.delete("/opencode/key", delete_key),
    web.get("/opencode/openapi.json", get_openapi),
    web.get("/opencode/docs", get_docs),
    web.get("/opencode/docs/{file}", get_docs_file),
)

# Only what no path of ours is for: one of those with another method is a 405, not PocketBase's.
EVERYTHING_ELSE = web.route("*", "/{path:(?!opencode(?:/|$)|test$).*}", proxy, name="pocketbase")
