"""Upstream over HTTP: puts in the real key, tries again briefly, streams both ways.

OpenCode would retry for over a minute in silence (five times, `Retry-After` without a cap), so
it never sees a failure that it retries: the short retries are made here and told to the run.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from runner.contract.events import ProviderWaiting
from runner.contract.problems import RunFailure
from runner.credential_proxy.door import refusal
from runner.credential_proxy.failures import (
    RETRIED,
    failure_of,
    retry_after_s,
    scrubbed,
)
from runner.credential_proxy.scripted import ending
from runner.credential_proxy.sse import watch_of
from runner.credential_proxy.upstreams import PATHS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import ClientResponse
    from pydantic import SecretStr

    from runner.credential_proxy.grants import Grant
    from runner.credential_proxy.sse import Watch
    from runner.credential_proxy.upstreams import Api, Call

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY_DELAYS_S = (0.5, 1.5)
_RETRY_AFTER_CAP_S = 5.0
_MAX_ERROR_BODY_BYTES = 1 << 16
_PASSED_ON = ("Content-Type", "Accept")
_USER_AGENT = "opencode-multiuser"


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a provider may be silent.

    Attributes:
        first_s: Until its first byte.
        between_s: Between two pieces of its answer.
    """

    first_s: float
    between_s: float


class HttpUpstream:
    """A provider, or the local model's server."""

    def __init__(
        self,
        http: ClientSession,
        *,
        base_url: str,
        api: Api,
        key: SecretStr | None,
        patience: Patience,
    ) -> None:
        self._http = http
        self._url = base_url + PATHS[api]
        self.api = api
        self._key = key
        self._patience = patience

    async def answer(self, request: web.Request, call: Call, grant: Grant) -> web.StreamResponse:
        """See `Upstream.answer`."""
        try:
            async with self._ask(request, call, grant) as response:
                return await self._stream(request, response, grant)
        except RunFailure as failure:
            log.info("provider_failed", code=failure.code, status=failure.params.get("status"))
            grant.fail(failure)
            return refusal(HTTPStatus.BAD_REQUEST, "the run has ended")

    @asynccontextmanager
    async def _ask(
        self, request: web.Request, call: Call, grant: Grant
    ) -> AsyncIterator[ClientResponse]:
        """Yield the provider's answer, after a few tries if need be.

        Raises:
            RunFailure: The provider refused, or could not be reached.
        """
        for attempt, delay_s in enumerate((*_RETRY_DELAYS_S, None), start=1):
            failure, wait_s = RunFailure("provider-unreachable"), delay_s
            try:
                response = await self._send(request, call)
            except TimeoutError as exc:
                raise RunFailure("provider-timeout") from exc
            except ClientError as exc:
                failure.__cause__ = exc
            else:
                async with response:
                    grant.sign_of_life()
                    if response.status == HTTPStatus.OK:
                        yield response
                        return
                    body = await _beginning_of(response)
                    failure = failure_of(response.status, body, self._secret)
                    wait_s = _wait_s(response, delay_s)
            if wait_s is None:
                raise failure
            await grant.tell(ProviderWaiting(attempt=attempt, reason=failure.code, retry_s=wait_s))
            await asyncio.sleep(wait_s)

    async def _send(self, request: web.Request, call: Call) -> ClientResponse:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers["User-Agent"] = _USER_AGENT
        headers["Accept-Encoding"] = "identity"  # a compressed stream would come in lumps
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        async with asyncio.timeout(self._patience.first_s):
            return await self._http.post(
                self._url,
                data=call.body,
                headers=headers,
                allow_redirects=False,  # a redirect would carry the key elsewhere
                timeout=ClientTimeout(total=None),
            )

    async def _stream(
        self, request: web.Request, response: ClientResponse, grant: Grant
    ) -> web.StreamResponse:
        """Pass the answer on, piece by piece."""
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        watch = watch_of(content_type)
        passed_on = web.StreamResponse(headers={"Content-Type": content_type})
        await passed_on.prepare(request)
        try:
            patience_s = self._patience.first_s
            while data := await _next_piece(response, patience_s):
                grant.sign_of_life()
                patience_s = self._patience.between_s
                watch.feed(data)
                self._check(watch)
                await passed_on.write(data)
            _check_ended(watch)
        except RunFailure as failure:
            log.info("provider_failed", code=failure.code)
            # OpenCode forgets the text it has not told yet when its stream breaks. So for OpenCode
            # the answer ends here; the run, which knows better, fails.
            grant.fail(failure, midway=True)
            await passed_on.write(ending(self.api, grant.model))
        finally:  # what was told counts, also where the run ends meanwhile
            if (used := watch.usage) is not None:
                await grant.used(used)
        await passed_on.write_eof()
        return passed_on

    def _check(self, watch: Watch) -> None:
        if watch.failure is not None:
            reason = scrubbed(watch.failure, self._secret)
            raise RunFailure("provider-refused", status=int(HTTPStatus.OK), reason=reason)

    @property
    def _secret(self) -> str | None:
        return self._key.get_secret_value() if self._key is not None else None


def _check_ended(watch: Watch) -> None:
    if not watch.ended:
        raise RunFailure("provider-dropped")


async def _next_piece(response: ClientResponse, patience_s: float) -> bytes:
    """Return the next bytes of the answer; empty at its end.

    Raises:
        RunFailure: None came in time, or the connection broke.
    """
    try:
        async with asyncio.timeout(patience_s):
            return await response.content.readany()
    except TimeoutError as exc:
        raise RunFailure("provider-timeout") from exc
    except ClientError as exc:
        raise RunFailure("provider-dropped") from exc


def _wait_s(response: ClientResponse, delay_s: float | None) -> float | None:
    """Return how long to wait before another try; None: don't try again."""
    if response.status not in RETRIED or delay_s is None:
        return None
    asked_s = retry_after_s(response.headers.get("Retry-After"))
    if asked_s is None:
        return delay_s
    return asked_s if asked_s <= _RETRY_AFTER_CAP_S else None


async def _beginning_of(response: ClientResponse) -> bytes:
    """Return as much of an error's body as can matter; a broken one is an empty one."""
    try:
        async with asyncio.timeout(2):
            return await response.content.read(_MAX_ERROR_BODY_BYTES)
    except (ClientError, TimeoutError):
        return b""
