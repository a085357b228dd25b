"""The runner's routes: internal, for the gateway."""

from __future__ import annotations

from aiohttp import web

from runner.handlers import health, models, runs

ROUTES = [
    web.get("/health", health.health),
    web.get("/models", models.list_models),
    web.post("/runs", runs.start_run),
]

OPEN_PATHS = frozenset({"/health"})
"""Answered without the service token: they tell nothing about anybody."""
