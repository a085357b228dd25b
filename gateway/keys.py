"""Everything the application and its requests carry, typed."""

from __future__ import annotations

from aiohttp import ClientSession, web

from gateway.auth.cache import CachingVerifier
from gateway.auth.tokens import Identity
from gateway.history import History
from gateway.metrics import Metrics
from gateway.offer import Offer
from gateway.pocketbase import PocketBase
from gateway.realtime import UserChanges
from gateway.runner_client import RunnerClient
from gateway.runs import RunService
from gateway.settings import Settings
from gateway.upstream import Upstream
from gateway.user_keys import UserKeys

SETTINGS = web.AppKey("settings", Settings)
VERIFIER = web.AppKey("verifier", CachingVerifier)
POCKETBASE = web.AppKey("pocketbase", PocketBase)
USER_CHANGES = web.AppKey("user_changes", UserChanges)
USER_KEYS = web.AppKey("user_keys", UserKeys)
RUNNER = web.AppKey("runner", RunnerClient)
OFFER = web.AppKey("offer", Offer)
RUNS = web.AppKey("runs", RunService)
METRICS = web.AppKey("metrics", Metrics)
HISTORY = web.AppKey("history", History)
PASS_THROUGH = web.AppKey("pass_through", ClientSession)
"""The session whose connections carry uploads to PocketBase."""
UPSTREAM = web.AppKey("upstream", Upstream)
"""The connections for all that has no body."""

IDENTITY = web.RequestKey("identity", Identity)
