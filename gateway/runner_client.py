"""The runner's HTTP, seen from the gateway; every failure becomes an error of ours."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar, overload
from urllib.parse import quote

import structlog
from aiohttp import ClientError, ClientTimeout
from pydantic import BaseModel, ValidationError
from yarl import URL

from gateway.streaming.lines import NoEvent, read_line
from runner.contract import version as contract
from runner.contract.headers import CONTRACT, NDJSON, REQUEST_ID, SUBJECT
from runner.contract.problems import ForeignProblem, RunnerUnavailable
from runner.contract.requests import (
    ModelList,
    PermissionAnswer,
    RunAccepted,
    RunList,
    RunnerHealth,
    RunState,
)
from runner.contract.wire import LineDecoder, LineTooLong

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection

    from aiohttp import ClientResponse, ClientSession
    from pydantic import SecretStr

    from gateway.streaming.lines import EventLine
    from runner.contract.requests import StartRun

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CONNECT_S = 3.0
_ANSWER_S = 5.0
_START_S = 15.0
_GOOD = (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)
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
            ContractMismatch: It is of a release too far from ours; so with every other question.
        """
        # Its state is in the body, whatever the status is.
        told_by = (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
        return await self._ask(
            "GET", "/health", RunnerHealth, {}, timeout_s=timeout_s, told_by=told_by
        )

    async def models(self, *, request_id: str) -> ModelList:
        """Return the models there are.

        Raises:
            RunnerUnavailable: The runner does not answer, or does not know us.
            ForeignProblem: It answers with a problem of its own.
        """
        return await self._ask("GET", "/models", ModelList, self._headers(request_id))

    async def start(self, run: StartRun, *, request_id: str) -> RunAccepted:
        """Have *run* carried out; the answer names the run that was joined, where one was.

        Raises:
            RunnerUnavailable: The runner does not answer, or does not know us.
            ForeignProblem: It refuses the run.
        """
        headers = self._headers(request_id) | {"Accept-Language": run.language}
        # A runner that is short of memory takes its time to take a run on.
        return await self._ask(
            "POST", "/runs", RunAccepted, headers, body=_body(run), timeout_s=_START_S
        )

    @asynccontextmanager
    async def events(
        self, run_id: str, *, subject: str, after: int | None, request_id: str
    ) -> AsyncIterator[AsyncIterator[list[EventLine]]]:
        """Read a run's events after number *after*; yields them in the batches they arrive in.

        The iterator ends after a terminal event, and raises `RunnerUnavailable` when the runner
        goes away before.

        Raises:
            RunnerUnavailable: The runner does not answer, or does not know us.
            ForeignProblem: 404: there is no such run of *subject*.
        """
        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._silence_s)
        try:
            response = await self._http.get(
                f"{self._base_url}/runs/{run_id}/events",
                params={} if after is None else {"after": str(after)},
                headers={**self._headers(request_id, subject), "Accept": NDJSON},
                timeout=timeout,
            )
        except (ClientError, TimeoutError) as exc:
            raise RunnerUnavailable(retry_after_s=_RETRY_AFTER_S) from exc
        try:
            _must_fit(response)
            if response.status != HTTPStatus.OK:
                raise await _problem_of(response)
            async with aclosing(_batches(response)) as batches:
                yield batches
        finally:
            # Not `release`: the connection must go at once where the run has not ended.
            response.close()

    async def state(self, run_id: str, *, subject: str, request_id: str) -> RunState:
        """Return what the runner knows of a run; see `events` for the errors."""
        return await self._ask(
            "GET", f"/runs/{run_id}", RunState, self._headers(request_id, subject)
        )

    async def states(self, run_ids: Collection[str], *, request_id: str) -> list[RunState]:
        """Return what the runner knows of some runs, whosever they are; leaves out unknown ones.

        Raises:
            RunnerUnavailable: The runner does not answer, or does not know us.
            ForeignProblem: It answers with a problem of its own.
        """
        path = f"/runs?ids={','.join(run_ids)}"
        return (await self._ask("GET", path, RunList, self._headers(request_id))).runs

    async def cancel(self, run_id: str, *, subject: str, request_id: str) -> RunState:
        """End a run, if it has not ended; see `events` for the errors."""
        return await self._ask(
            "DELETE", f"/runs/{run_id}", RunState, self._headers(request_id, subject)
        )

    async def answer_permission(
        self, run_id: str, permission_id: str, option: str, *, subject: str, request_id: str
    ) -> None:
        """Answer what the agent asks.

        Raises:
            RunnerUnavailable: The runner does not answer, or does not know us.
            ForeignProblem: 404: there is no such question; 409: it was answered before; 422: it
                has no such option.
        """
        path = f"/runs/{run_id}/permissions/{quote(permission_id, safe='')}"
        body = PermissionAnswer(option=option).model_dump_json().encode()
        await self._ask("POST", path, None, self._headers(request_id, subject), body=body)

    @overload
    async def _ask(
        self,
        method: str,
        path: str,
        model: type[Model],
        headers: dict[str, str],
        *,
        body: bytes | None = None,
        timeout_s: float = _ANSWER_S,
        told_by: tuple[HTTPStatus, ...] = _GOOD,
    ) -> Model: ...

    @overload
    async def _ask(
        self, method: str, path: str, model: None, headers: dict[str, str], *, body: bytes
    ) -> None: ...

    async def _ask(
        self,
        method: str,
        path: str,
        model: type[Model] | None,
        headers: dict[str, str],
        *,
        body: bytes | None = None,
        timeout_s: float = _ANSWER_S,
        told_by: tuple[HTTPStatus, ...] = _GOOD,
    ) -> Model | None:
        """Return the answer as *model*; None reads nothing."""
        if body is not None:
            headers = headers | {"Content-Type": "application/json"}
        try:
            async with self._http.request(
                method,
                URL(self._base_url + path, encoded=True),
                data=body,
                headers=headers,
                timeout=ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S),
            ) as response:
                _must_fit(response)
                if response.status not in told_by:
                    raise await _problem_of(response)
                return None if model is None else model.model_validate_json(await response.read())
        except (ClientError, TimeoutError, ValidationError) as exc:
            raise RunnerUnavailable(retry_after_s=_RETRY_AFTER_S) from exc

    def _headers(self, request_id: str, subject: str | None = None) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._token.get_secret_value()}",
            CONTRACT: str(contract.CONTRACT),
            REQUEST_ID: request_id,
            **({SUBJECT: subject} if subject is not None else {}),
        }


def _must_fit(response: ClientResponse) -> None:
    contract.must_fit(gateway=contract.CONTRACT, runner=contract.spoken_in(response.headers))


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
