"""The gateway's own sign-in at PocketBase, kept and renewed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog
from aiohttp import ClientError

from gateway.auth.tokens import read_unverified
from runner.contract.problems import PocketBaseUnavailable, TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import ClientSession
    from pydantic import SecretStr

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RENEW_BEFORE_S = 60.0
_REFUSAL_KEPT_S = 5.0  # a wrong password costs PocketBase a bcrypt each time


class ServiceAccount:
    """A superuser's token: signed in at the first need, again before it expires."""

    def __init__(
        self,
        http: ClientSession,
        *,
        base_url: str,
        email: str,
        password: SecretStr,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._url = f"{base_url}/api/collections/_superusers/auth-with-password"
        self._email = email
        self._password = password
        self._now = now
        self._token = ""
        self._expires_at = 0.0
        self._refused_until = 0.0
        self._signing_in = asyncio.Lock()

    async def token(self) -> str:
        """Return a token that is good for a while; callers share one sign-in.

        Raises:
            PocketBaseUnavailable: PocketBase did not answer, or refuses the account.
        """
        async with self._signing_in:
            if self._now() >= self._expires_at - _RENEW_BEFORE_S:
                await self._sign_in()
            return self._token

    async def renewed_token(self) -> str:
        """Return a token that is good now, whatever happened to PocketBase; see `token`."""
        self.forget(self._token)
        return await self.token()

    def forget(self, token: str) -> None:
        """Take note that PocketBase does not accept *token* any more."""
        if token == self._token:
            self._expires_at = 0.0

    async def _sign_in(self) -> None:
        if self._now() < self._refused_until:
            raise PocketBaseUnavailable(retry_after_s=_REFUSAL_KEPT_S)
        body = {"identity": self._email, "password": self._password.get_secret_value()}
        try:
            async with self._http.post(
                self._url, params={"fields": "token"}, json=body
            ) as response:
                if 400 <= response.status < 500:  # noqa: PLR2004
                    self._refused_until = self._now() + _REFUSAL_KEPT_S
                    log.error("service_account_refused", status=response.status)
                    raise PocketBaseUnavailable(retry_after_s=_REFUSAL_KEPT_S)
                response.raise_for_status()
                token = str((await response.json())["token"])
            self._expires_at = read_unverified(token, now=self._now()).expires_at
        except (ClientError, TimeoutError, ValueError, KeyError, TypeError, TokenInvalid) as exc:
            raise PocketBaseUnavailable(retry_after_s=2) from exc
        self._token = token
        log.info("service_account_signed_in")
