"""The runner's routes: internal, for the gateway."""

from __future__ import annotations

from aiohttp import web

from runner.handlers import health, models, runs

ROUTES = [
    web.get("/health", health.health),
    web.get("/models", models.list_models),
    web.post("/runs", runs.start_run),
    web.get("/runs", runs.list_runs),
    web.get("/runs/{run_id}", runs.show_run),
    web.delete("/runs/{run_id}", runs.cancel_run),
    web.get("/runs/{run_id}/events", runs.read_events),
    web.post("/runs/{run_id}/permissions/{permission_id}", runs.answer_permission),
]

OPEN_PATHS = frozenset({"/health"})
"""Answered without the service token: they tell nothing about anybody."""
