"""The runner's HTTP, seen from the gateway; every failure becomes an error of ours."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiohttp import ClientError, ClientTimeout
from pydantic import BaseModel, ValidationError

from gateway.streaming.lines import NoEvent, read_line
from runner.contract.headers import NDJSON, REQUEST_ID
from runner.contract.problems import ForeignProblem, RunnerUnavailable
from runner.contract.requests import ModelList, RunnerHealth
from runner.contract.wire import LineDecoder, LineTooLong

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from aiohttp import ClientResponse, ClientSession
    from pydantic import SecretStr

    from gateway.streaming.lines import EventLine
    from runner.contract.requests import StartRun

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CONNECT_S = 3.0
_ANSWER_S = 5.0
# The runner sends an empty line every 5 s: so much silence means that it is gone.
_SILENCE_S = 30.0
_RETRY_AFTER_S = 3.0
_MAX_PROBLEM_BYTES = 64 << 10
_END_S = 2.0

Model = TypeVar("Model", bound=BaseModel)


class RunnerClient:
    """Client for one runner, over a session that somebody else closes."""

    def __init__(
        self,
        http: ClientSession,
        *,
        base_url: str,
        token: SecretStr,
        silence_s: float = _SILENCE_S,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._token = token
        self._silence_s = silence_s

    async def health(self, *, timeout_s: float) -> RunnerHealth:
        """Return what the runner says about itself.

        Raises:
            RunnerUnavailable: It does not answer in time, or with something else.
        """
        # Its state is in the body, whatever the status is.
        told_by = (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
        return await self._get("/health", RunnerHealth, timeout_s, {}, told_by)

    async def models(self, *, request_id: str) -> ModelList:
        """Return the models there are.

        Raises:
            RunnerUnavailable: The runner does not answer, or does not know us.
            ForeignProblem: It answers with a problem of its own.
        """
        return await self._get("/models", ModelList, _ANSWER_S, self._headers(request_id))

    @asynccontextmanager
    async def start(
        self, run: StartRun, *, request_id: str
    ) -> AsyncIterator[AsyncIterator[list[EventLine]]]:
        """Start a run; yields its events, in the batches they arrive in.

        Leaving the block closes the connection, which cancels a run that has not ended. The
        iterator raises `RunnerUnavailable` when the runner goes away before a terminal event.

        Raises:
            RunnerUnavailable: The runner does not answer, or does not know us.
            ForeignProblem: It refuses the run.
        """
        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._silence_s)
        request = self._http.post(
            f"{self._base_url}/runs",
            data=_body(run),
            headers={
                **self._headers(request_id),
                "Content-Type": "application/json",
                "Accept": NDJSON,
                "Accept-Language": run.language,
            },
            timeout=timeout,
        )
        try:
            response = await request
        except (ClientError, TimeoutError) as exc:
            raise RunnerUnavailable(retry_after_s=_RETRY_AFTER_S) from exc
        try:
            if response.status != HTTPStatus.OK:
                raise await _problem_of(response)
            async with aclosing(_batches(response)) as batches:
                yield batches
        finally:
            # Not `release`: the connection must go at once where the run has not ended.
            response.close()

    async def _get(
        self,
        path: str,
        model: type[Model],
        timeout_s: float,
        headers: dict[str, str],
        told_by: tuple[HTTPStatus, ...] = (HTTPStatus.OK,),
    ) -> Model:
        try:
            async with self._http.get(
                f"{self._base_url}{path}",
                headers=headers,
                timeout=ClientTimeout(total=timeout_s),
            ) as response:
                if response.status in told_by:
                    return model.model_validate_json(await response.read())
                raise await _problem_of(response)
        except (ClientError, TimeoutError, ValidationError) as exc:
            raise RunnerUnavailable(retry_after_s=_RETRY_AFTER_S) from exc

    def _headers(self, request_id: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._token.get_secret_value()}",
            REQUEST_ID: request_id,
        }


def _body(run: StartRun) -> bytes:
    """Return *run* as JSON, the key in the clear: this is the one place it is meant to go."""
    fields = run.model_dump(mode="json", exclude={"key"})
    if run.key is not None:
        fields["key"] = run.key.get_secret_value()
    return json.dumps(fields, ensure_ascii=False).encode()


async def _batches(response: ClientResponse) -> AsyncGenerator[list[EventLine], None]:
    decoder = LineDecoder()
    try:
        async for chunk in response.content.iter_any():
            batch = [read_line(line) for line in decoder.feed(chunk)]
            if batch:
                yield batch
            if any(line.is_terminal for line in batch):
                await _let_it_end(response)
                return
    except (ClientError, TimeoutError, LineTooLong, NoEvent) as exc:
        raise RunnerUnavailable from exc
    raise RunnerUnavailable


async def _let_it_end(response: ClientResponse) -> None:
    """Wait a moment for the end of the body: hanging up now would look like a caller who left."""
    with suppress(ClientError, TimeoutError):
        async with asyncio.timeout(_END_S):
            await response.content.read()


async def _problem_of(response: ClientResponse) -> ForeignProblem | RunnerUnavailable:
    """Return the runner's refusal as an error that speaks the caller's language."""
    if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        log.error("runner_refuses_gateway", status=response.status)
        return RunnerUnavailable(retry_after_s=_RETRY_AFTER_S)
    try:
        problem = json.loads(await response.content.read(_MAX_PROBLEM_BYTES))
        code, params = problem["code"], problem.get("params") or {}
    except (ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as exc:
        log.warning("runner_answered_strangely", status=response.status, error=type(exc).__name__)
        return RunnerUnavailable(retry_after_s=_RETRY_AFTER_S)
    reserved = {"status", "code", "retry_after_s"}
    return ForeignProblem(
        response.status,
        str(code),
        retry_after_s=_seconds(response.headers.get("Retry-After")),
        **{str(name): value for name, value in params.items() if name not in reserved},
    )


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdecimal() else None
