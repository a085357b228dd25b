"""Hear at once from PocketBase when a user changes, and forget what was known about them."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import structlog
from aiohttp import ClientError, ClientTimeout

from runner.contract.problems import PocketBaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import ClientResponse, ClientSession

    from gateway.service_account import ServiceAccount

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# PocketBase ends idle connections after 5 minutes: more silence than that means it is gone.
_SILENCE_S = 330.0
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 10.0
# Only the id: nothing else of a record has to travel.
_TOPIC = 'users/*?options={"query":{"fields":"id"}}'


class Forgetful(Protocol):
    """Something that remembers users."""

    def evict(self, user_id: str) -> None:
        """Forget one user."""

    def clear(self) -> None:
        """Forget all users."""


class UserChanges:
    """A subscription to `users` that lasts: it comes back after every end."""

    def __init__(
        self, http: ClientSession, *, base_url: str, account: ServiceAccount, cache: Forgetful
    ) -> None:
        self._http = http
        self._url = f"{base_url}/api/realtime"
        self._account = account
        self._cache = cache
        self.subscribed = asyncio.Event()
        """Set while changes are heard at once."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Keep the subscription while the block runs."""
        task = asyncio.create_task(self._keep_listening())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep_listening(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                await self._listen()
            except (ClientError, TimeoutError, ValueError, KeyError, PocketBaseUnavailable) as exc:
                log.debug("user_changes_interrupted", error=type(exc).__name__)
            if self.subscribed.is_set():
                backoff_s = _FIRST_BACKOFF_S
                self.subscribed.clear()
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _listen(self) -> None:
        """Subscribe and pass changes on until the connection ends."""
        # With a token that is not good any more PocketBase would take us for a guest, and say
        # nothing: neither now nor later.
        token = await self._account.renewed_token()
        timeout = ClientTimeout(total=None, sock_connect=3, sock_read=_SILENCE_S)
        async with self._http.get(self._url, timeout=timeout) as response:
            response.raise_for_status()
            async for event, data in _sse(response):
                if event == "PB_CONNECT":
                    await self._subscribe(str(json.loads(data)["clientId"]), token)
                    # What changed while nobody listened is unknown.
                    self._cache.clear()
                    self.subscribed.set()
                elif event.startswith("users/"):
                    self._cache.evict(str(json.loads(data)["record"]["id"]))

    async def _subscribe(self, client_id: str, token: str) -> None:
        body = {"clientId": client_id, "subscriptions": [_TOPIC]}
        headers = {"Authorization": token}
        async with self._http.post(self._url, json=body, headers=headers) as response:
            response.raise_for_status()


async def _sse(response: ClientResponse) -> AsyncIterator[tuple[str, str]]:
    """Yield (event, data) of PocketBase's server-sent events: one data line each."""
    event = data = ""
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(":")
        if name == "event":
            event = value.strip()
        elif name == "data":
            data = value
        elif not name and not value and event:
            yield event, data
            event = data = ""
