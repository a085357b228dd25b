"""The collection `runs` in PocketBase, and the views that sum it up.

Written as superuser, read with the caller's own token.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import ClientError

from runner.contract.problems import NotFound, PocketBaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientSession

    from gateway.service_account import ServiceAccount

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RECORDS = "/api/collections/runs/records"
_RETRY_AFTER_S = 2.0
_PAGE = 500
_GUEST = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class RunRecords:
    """Client for the collection, over a session that somebody else closes.

    All methods raise `PocketBaseUnavailable` when there is no answer.
    """

    def __init__(self, http: ClientSession, *, base_url: str, account: ServiceAccount) -> None:
        self._http = http
        self._base_url = base_url
        self._account = account

    async def create(self, run_id: str, fields: Mapping[str, Any]) -> None:
        """Make a record; one that is there stays as it is, one of a user who is gone is dropped."""
        status, answer = await self._as_superuser("POST", _RECORDS, {"id": run_id, **fields})
        if status == HTTPStatus.BAD_REQUEST:
            wrong = sorted(answer.get("data") or {})
            if wrong != ["id"]:
                log.warning("record_refused", run_id=run_id, fields=wrong)
        elif status != HTTPStatus.OK:
            raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)

    async def update(self, run_id: str, fields: Mapping[str, Any]) -> None:
        """Change a record; where there is none, make it."""
        status, answer = await self._as_superuser("PATCH", f"{_RECORDS}/{run_id}", fields)
        if status == HTTPStatus.NOT_FOUND:
            await self.create(run_id, fields)
        elif status == HTTPStatus.BAD_REQUEST:
            log.warning("record_refused", run_id=run_id, fields=sorted(answer.get("data") or {}))
        elif status != HTTPStatus.OK:
            raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)

    async def has_ended(self, run_id: str) -> bool:
        """Return whether an end is recorded, or there is no record."""
        path = f"{_RECORDS}/{run_id}"
        status, answer = await self._as_superuser("GET", path, None, {"fields": "ended"})
        if status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)
        return status == HTTPStatus.NOT_FOUND or bool(answer.get("ended"))

    async def unfinished(self) -> list[str]:
        """Return the ids of the runs that no end is recorded of."""
        found: list[str] = []
        query = {"filter": "ended = ''", "fields": "id", "perPage": str(_PAGE), "skipTotal": "1"}
        for page in range(1, 1000):
            path = _RECORDS
            status, answer = await self._as_superuser(
                "GET", path, None, {**query, "page": str(page), "sort": "started,id"}
            )
            if status != HTTPStatus.OK:
                raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)
            found += [str(item["id"]) for item in answer["items"]]
            if len(answer["items"]) < _PAGE:
                break
        if not found:
            # To a token that is not good any more the list is empty, as to any guest.
            await self._as_superuser("GET", "/api/collections/runs", None, {"fields": "id"})
        return found

    async def page_for(self, token: str, *, page: int, per_page: int) -> dict[str, Any]:
        """Return one page of the records that *token*'s user may see, newest first."""
        query = {"page": str(page), "perPage": str(per_page), "sort": "-started,-id"}
        return await self._list(_RECORDS, token, query)

    async def usage_by_day_for(self, token: str, *, days: int) -> list[dict[str, Any]]:
        """Return what *token*'s user has used on each of the latest *days* with runs."""
        query = {"perPage": str(days), "sort": "-day", "skipTotal": "1"}
        answer = await self._list("/api/collections/usage_by_day/records", token, query)
        return list(answer["items"])

    async def usage_for(self, token: str) -> dict[str, Any]:
        """Return what *token*'s user has used in all; empty for one who has not had a run."""
        query = {"perPage": "1", "skipTotal": "1"}
        answer = await self._list("/api/collections/usage_by_user/records", token, query)
        return next(iter(answer["items"]), {})

    async def one_for(self, token: str, run_id: str) -> dict[str, Any]:
        """Return a record.

        Raises:
            NotFound: There is none that *token*'s user may see.
        """
        status, answer = await self._send("GET", f"{_RECORDS}/{run_id}", token, None, {})
        if status == HTTPStatus.NOT_FOUND:
            raise NotFound
        if status != HTTPStatus.OK:
            raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)
        return answer

    async def _list(self, path: str, token: str, query: Mapping[str, str]) -> dict[str, Any]:
        status, answer = await self._send("GET", path, token, None, query)
        if status != HTTPStatus.OK:
            raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)
        return answer

    async def _as_superuser(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        for _try in range(2):
            token = await self._account.token()
            status, answer = await self._send(method, path, token, body, query or {})
            if status not in _GUEST:
                return status, answer
            # With a token that is not good any more PocketBase takes us for a guest.
            self._account.forget(token)
        raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S)

    async def _send(
        self,
        method: str,
        path: str,
        token: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str],
    ) -> tuple[int, dict[str, Any]]:
        try:
            async with self._http.request(
                method,
                self._base_url + path,
                params=query,
                json=body,
                headers={"Authorization": token},
            ) as response:
                answer = await response.json()
        except (ClientError, TimeoutError, ValueError) as exc:
            raise PocketBaseUnavailable(retry_after_s=_RETRY_AFTER_S) from exc
        return response.status, answer if isinstance(answer, dict) else {}
