"""The language a caller is answered in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.keys import SETTINGS
from runner.plumbing.language import choose_language

if TYPE_CHECKING:
    from aiohttp import web

    from runner.contract.requests import Language


def language_of(request: web.Request) -> Language:
    """Return the language of *request*: what it accepts, else `GATEWAY_LANGUAGE`."""
    default = request.app[SETTINGS].gateway_language
    chosen = choose_language(request.headers.get("Accept-Language"), default)
    return "de" if chosen == "de" else "en"
