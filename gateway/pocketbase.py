"""The few PocketBase endpoints the gateway needs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import ClientError, ClientTimeout

from gateway.auth.tokens import Identity, TokenVerifier, one_line, read_unverified
from runner.contract.problems import NotFound, PocketBaseUnavailable, TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import ClientSession

    from gateway.service_account import ServiceAccount

_REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
    }
)
_RETRY_AFTER_S = 2.0


class PocketBase:
    """Client for one PocketBase, over a session that somebody else closes."""

    def __init__(
        self,
        http: ClientSession,
        *,
        base_url: str,
        account: ServiceAccount,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._account = account
        self._now = now

    async def verify(self, token: str) -> Identity:
        """See `TokenVerifier.verify`.

        PocketBase signs with a key of the record's own, so only PocketBase can check. Of all
        questions `auth-refresh` of the collection `users` depends on no rule that an admin may
        open or close: it answers for a token of that collection, and for nothing else (guests,
        superusers, other collections, forged or revoked tokens). It hands a long-lived token of
        `impersonate` back as it is; the new token it makes otherwise is thrown away.
        """
        claims = read_unverified(token, now=self._now())
        url = f"{self._base_url}/api/collections/users/auth-refresh"
        fields = {"fields": "record.id,record.collectionName,record.name,record.email"}
        with _mapped_errors():
            async with self._http.post(
                url, params=fields, headers={"Authorization": token}
            ) as response:
                if response.status in _REFUSED:
                    raise TokenInvalid
                response.raise_for_status()
                record = (await response.json())["record"]
            if record["collectionName"] != "users" or record["id"] != claims.user_id:
                raise TokenInvalid
            name = one_line(str(record.get("name") or "")) or one_line(record.get("email") or "")
        return Identity(
            user_id=claims.user_id, name=name or claims.user_id, expires_at=claims.expires_at
        )

    async def check(self, *, timeout_s: float) -> None:
        """See whether PocketBase answers and knows the service account.

        Raises:
            PocketBaseUnavailable: No.
        """
        with _mapped_errors():
            async with self._http.get(
                f"{self._base_url}/api/health", timeout=ClientTimeout(total=timeout_s)
            ) as response:
                response.raise_for_status()
        await self._account.token()

    async def read_api_key(self, user_id: str) -> str:
        """Return what is stored as the user's API key, as it is; empty if there is none.

        Raises:
            NotFound: There is no such user (any more).
            PocketBaseUnavailable: PocketBase did not answer.
        """
        record = await self._as_superuser("GET", user_id, None)
        return str(record.get("api_key") or "")

    async def write_api_key(self, user_id: str, value: str) -> None:
        """Store *value*, which must be encrypted already; empty for none.

        Raises:
            NotFound: There is no such user (any more).
            PocketBaseUnavailable: PocketBase did not answer.
        """
        await self._as_superuser("PATCH", user_id, {"api_key": value})

    async def _as_superuser(
        self, method: str, user_id: str, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        url = f"{self._base_url}/api/collections/users/records/{user_id}"
        status = 0
        for _try in range(2):
            token = await self._account.token()
            with _mapped_errors():
                async with self._http.request(
                    method,
                    url,
                    params={"fields": "api_key"},
                    json=body,
                    headers={"Authorization": token},
                ) as response:
                    status = response.status
                    if status not in _REFUSED:
                        response.raise_for_status()
                        record: dict[str, Any] = await response.json()
                        if "api_key" in record:
                            return record
            # With a token that is not good any more PocketBase takes us for a guest: the record
            # is not there, or has no hidden field. Sign in again and see.
            self._account.forget(token)
        if status == HTTPStatus.NOT_FOUND:
            raise NotFound
        raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Turn whatever PocketBase may do to us into one error of ours."""
    try:
        yield
    except (ClientError, TimeoutError, ValueError, KeyError, TypeError) as exc:
        raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S) from exc


_: type[TokenVerifier] = PocketBase
