"""`/opencode/runs`: runs that outlive their connection: start, look, end, answer, sum up."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.handlers.input import body_of, caller_of, prompt_in_body, query_of
from gateway.history import ENDED
from gateway.keys import RUNS
from gateway.models import PageQuery, RunAccepted, UsageQuery
from runner.contract.headers import RUN_ID
from runner.contract.requests import PermissionAnswer

if TYPE_CHECKING:
    from pydantic import BaseModel


async def post_run(request: web.Request) -> web.Response:
    """`POST`: start a run; it goes on whoever reads it."""
    prompt = await prompt_in_body(request)
    run_id = await request.app[RUNS].start(caller_of(request), prompt, attached=False)
    headers = {"Location": f"/opencode/runs/{run_id}", RUN_ID: run_id}
    return _answer(RunAccepted(id=run_id), HTTPStatus.ACCEPTED, headers)


async def get_runs(request: web.Request) -> web.Response:
    """`GET`: the caller's runs, newest first, a page at a time."""
    asked = query_of(request, PageQuery)
    page = await request.app[RUNS].page(
        caller_of(request), page=asked.page, per_page=asked.per_page
    )
    return _answer(page)


async def get_usage(request: web.Request) -> web.Response:
    """`GET /opencode/usage`: what the caller's runs have used."""
    asked = query_of(request, UsageQuery)
    return _answer(await request.app[RUNS].usage(caller_of(request), days=asked.days))


async def get_run(request: web.Request) -> web.Response:
    """`GET`: how one run is."""
    return _answer(await request.app[RUNS].look(caller_of(request), request.match_info["id"]))


async def delete_run(request: web.Request) -> web.Response:
    """`DELETE`: end a run. Again, or after its end, it changes nothing."""
    run = await request.app[RUNS].cancel(caller_of(request), request.match_info["id"])
    return _answer(run, HTTPStatus.OK if run.status in ENDED else HTTPStatus.ACCEPTED)


async def post_permission(request: web.Request) -> web.Response:
    """`POST`: answer what OpenCode asks."""
    answer = await body_of(request, PermissionAnswer)
    ids = request.match_info
    await request.app[RUNS].answer(caller_of(request), ids["id"], ids["pid"], answer.option)
    return web.Response(status=HTTPStatus.NO_CONTENT)


def _answer(
    body: BaseModel,
    status: HTTPStatus = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
) -> web.Response:
    return web.Response(
        body=body.model_dump_json().encode(),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
