"""`/opencode/openapi.json` and `/opencode/docs`: the API for programs and for people."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from aiohttp import web

from gateway.openapi.document import document
from runner.contract.problems import NotFound

_TYPES = {"docs.js": "text/javascript", "docs.css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


async def get_openapi(_: web.Request) -> web.Response:
    """`GET /opencode/openapi.json`: OpenAPI 3.1."""
    return web.Response(body=_openapi(), content_type="application/json")


async def get_docs(_: web.Request) -> web.Response:
    """`GET /opencode/docs`: a page that shows the API and tries it, all of it from here."""
    return _page("docs.html", "text/html")


async def get_docs_file(request: web.Request) -> web.Response:
    """`GET /opencode/docs/{file}`: what the page loads."""
    name = request.match_info["file"]
    if name not in _TYPES:
        raise NotFound
    return _page(name, _TYPES[name])


def _page(name: str, content_type: str) -> web.Response:
    return web.Response(
        body=_file(name),
        content_type=content_type,
        charset="utf-8",
        headers={
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )


@cache
def _openapi() -> bytes:
    return json.dumps(document(), ensure_ascii=False).encode()


@cache
def _file(name: str) -> bytes:
    return (files("gateway") / "pages" / name).read_bytes()
