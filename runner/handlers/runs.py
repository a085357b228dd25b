"""Runs over HTTP: started, read as NDJSON while they happen and afterwards, cancelled."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from runner.contract.headers import NDJSON, RUN_ID, SUBJECT
from runner.contract.requests import PermissionAnswer, RunList, StartRun
from runner.contract.version import CONTRACT, spoken_in
from runner.keys import RUNS
from runner.plumbing.parsing import parse, read_body

_HEARTBEAT = b"\n"
_HEARTBEAT_S = 5.0


class _EventsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    after: int | None = Field(default=None, ge=0)


class _ListQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    subject: str | None = None
    ids: str | None = None


async def start_run(request: web.Request) -> web.Response:
    """POST /runs: accept a run, or name the one it repeats.

    What a newer gateway may add is passed over; from one of our own time it is a mistake.
    """
    is_newer = spoken_in(request.headers) > CONTRACT
    start = await read_body(request, StartRun, ignore_unknown=is_newer)
    accepted = request.app[RUNS].start(start)
    return _json(accepted, HTTPStatus.ACCEPTED)


async def list_runs(request: web.Request) -> web.Response:
    """GET /runs?subject= or ?ids=a,b: the states of runs, for whoever keeps records of them."""
    query = parse(request.query, _ListQuery)
    run_ids = None if query.ids is None else set(query.ids.split(","))
    runs = request.app[RUNS].states(subject=query.subject, run_ids=run_ids)
    return _json(RunList(runs=runs))


async def show_run(request: web.Request) -> web.Response:
    """GET /runs/{run_id}: its state."""
    return _json(request.app[RUNS].state(_run_id(request), _subject(request)))


async def cancel_run(request: web.Request) -> web.Response:
    """DELETE /runs/{run_id}: have it end; again, or after its end, does no harm."""
    state = request.app[RUNS].cancel(_run_id(request), _subject(request))
    return _json(state, HTTPStatus.ACCEPTED)


async def read_events(request: web.Request) -> web.StreamResponse:
    """GET /runs/{run_id}/events?after=: its log from there on, live, up to its terminal event."""
    after = parse(request.query, _EventsQuery).after
    run_id = _run_id(request)
    with request.app[RUNS].reading(
        run_id, _subject(request), after=after, heartbeat_s=_HEARTBEAT_S
    ) as reading:
        response = web.StreamResponse(headers={"Content-Type": NDJSON, RUN_ID: run_id})
        await response.prepare(request)
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                await response.write(piece or _HEARTBEAT)
        await response.write_eof()
        return response


async def answer_permission(request: web.Request) -> web.Response:
    """POST /runs/{run_id}/permissions/{permission_id}: what a person decided."""
    answer = await read_body(request, PermissionAnswer)
    request.app[RUNS].answer(
        _run_id(request),
        _subject(request),
        request.match_info["permission_id"],
        answer.option,
    )
    return web.Response(status=HTTPStatus.NO_CONTENT)


def _run_id(request: web.Request) -> str:
    return request.match_info["run_id"]


def _subject(request: web.Request) -> str | None:
    return request.headers.get(SUBJECT)


def _json(body: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.json_response(text=body.model_dump_json(), status=status)
