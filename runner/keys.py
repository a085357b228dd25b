"""Typed keys of what the composition root builds."""

from __future__ import annotations

from aiohttp import web

from runner.models.catalogue import Catalogue
from runner.runs import RunService
from runner.settings import Settings
from runner.status import Status

SETTINGS = web.AppKey("settings", Settings)
CATALOGUE = web.AppKey("catalogue", Catalogue)
RUNS = web.AppKey("runs", RunService)
STATUS = web.AppKey("status", Status)
