"""The few PocketBase endpoints the gateway needs."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import ClientError, ClientTimeout

from gateway.auth.tokens import Identity, TokenVerifier, one_line, read_unverified
from runner.contract.problems import NotFound, PocketBaseUnavailable, TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from aiohttp import ClientSession

    from gateway.service_account import ServiceAccount
    from gateway.upstream import Upstream

_REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
    }
)
_RETRY_AFTER_S = 2.0
_ANSWER_S = 10.0


class PocketBase:
    """Client for one PocketBase, over a session that somebody else closes."""

    def __init__(
        self,
        http: ClientSession,
        upstream: Upstream,
        *,
        base_url: str,
        account: ServiceAccount,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._upstream = upstream
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
        return str((await self._as_superuser(user_id, self._read))["api_key"] or "")

    async def write_api_key(self, user_id: str, value: str) -> None:
        """Store *value*, which must be encrypted already; empty for none.

        Raises:
            NotFound: There is no such user (any more).
            PocketBaseUnavailable: PocketBase did not answer.
        """

        async def write(path: str, token: str) -> tuple[int, Any]:
            async with self._http.patch(
                self._base_url + path, json={"api_key": value}, headers={"Authorization": token}
            ) as response:
                return response.status, await response.json()

        await self._as_superuser(user_id, write)

    async def _read(self, path: str, token: str) -> tuple[int, Any]:
        headers = (("Authorization", token),)
        status, body = await self._upstream.read("GET", path, headers, timeout_s=_ANSWER_S)
        return status, json.loads(body)

    async def _as_superuser(
        self, user_id: str, ask: Callable[[str, str], Awaitable[tuple[int, Any]]]
    ) -> dict[str, Any]:
        """Return the user's record, as far as asked for here, from what *ask* is answered."""
        path, status = f"/api/collections/users/records/{user_id}?fields=api_key", 0
        for _try in range(2):
            token = await self._account.token()
            with _mapped_errors():
                status, record = await ask(path, token)
            if status == HTTPStatus.OK and "api_key" in record:
                found: dict[str, Any] = record
                return found
            if status != HTTPStatus.OK and status not in _REFUSED:
                break
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
    except (ClientError, OSError, ValueError, KeyError, TypeError) as exc:
        raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S) from exc


_: type[TokenVerifier] = PocketBase
