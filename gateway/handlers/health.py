"""Is it alive, and can it do its work?"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.keys import POCKETBASE, RUNNER
from gateway.models import Health, OpenCodePart, PartHealth, RunnerPart
from gateway.version import version
from runner.contract.problems import PocketBaseUnavailable, ServiceError

if TYPE_CHECKING:
    from runner.contract.requests import RunnerHealth

_ANSWER_S = 3.0
_RETRY_AFTER_S = "5"
_DRAINING = "It takes no new runs: it is about to end or to be restarted"
_DOWN = PartHealth(status="down")


async def get_test(_: web.Request) -> web.Response:
    """`GET /test`: the process is alive."""
    return web.json_response({"status": "ok", "service": "gateway", "version": version()})


async def get_health(request: web.Request) -> web.Response:
    """`GET /opencode/health`: every part, asked at the same time."""
    pocketbase, runner = await asyncio.gather(_pocketbase(request), _runner(request))
    health = _summary(pocketbase, runner)
    headers = {"Cache-Control": "no-store"}
    if health.status == "down":
        headers["Retry-After"] = _RETRY_AFTER_S
    return web.Response(
        body=health.model_dump_json().encode(),
        status=HTTPStatus.SERVICE_UNAVAILABLE if health.status == "down" else HTTPStatus.OK,
        content_type="application/json",
        headers=headers,
    )


async def _pocketbase(request: web.Request) -> PartHealth:
    try:
        async with asyncio.timeout(_ANSWER_S):
            await request.app[POCKETBASE].check(timeout_s=_ANSWER_S)
    except (PocketBaseUnavailable, TimeoutError):
        return _DOWN
    return PartHealth(status="ok")


async def _runner(request: web.Request) -> RunnerHealth | ServiceError:
    try:
        return await request.app[RUNNER].health(timeout_s=_ANSWER_S)
    except ServiceError as exc:
        return exc


def _summary(pocketbase: PartHealth, runner: RunnerHealth | ServiceError) -> Health:
    if isinstance(runner, ServiceError):
        return Health(
            status="down",
            version=version(),
            pocketbase=pocketbase,
            runner=RunnerPart(status="down", reason=str(runner)),
            opencode=OpenCodePart(status="unknown"),
            queue=None,
        )
    parts = (pocketbase.status, runner.status, runner.opencode.status)
    return Health(
        status="down" if "down" in parts else "degraded" if "degraded" in parts else "ok",
        version=version(),
        pocketbase=pocketbase,
        runner=RunnerPart(
            status=runner.status,
            reason=_DRAINING if runner.draining else None,
            version=runner.version,
            sandbox=runner.sandbox,
            pool=runner.pool,
            models=runner.models,
        ),
        opencode=OpenCodePart(**runner.opencode.model_dump()),
        queue=runner.queue,
    )
