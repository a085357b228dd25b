"""The stack is up when its health says so."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from stack.health import until_healthy
from stack.supervisor import PartFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def answering(*states: str) -> AsyncIterator[str]:
    """A gateway whose health goes through *states* and stays at the last."""
    left = list(states)

    async def health(request: web.Request) -> web.Response:
        state = left.pop(0) if len(left) > 1 else left[0]
        return web.json_response({"status": state, "runner": {"status": state}}, status=200)

    app = web.Application()
    app.router.add_get("/opencode/health", health)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_it_waits_until_everything_is_ok() -> None:
    """Not only until somebody answers."""
    async with answering("down", "degraded", "ok") as origin:
        await until_healthy(origin, within_s=20)


async def test_a_stack_that_stays_down_is_given_up_with_its_state() -> None:
    """The operator reads which part it is."""
    async with answering("down") as origin:
        with pytest.raises(PartFailed, match="runner down"):
            await until_healthy(origin, within_s=0.6)


async def test_a_stack_that_stays_degraded_is_up_in_the_end() -> None:
    """It can do the main job, if not everything."""
    async with answering("degraded") as origin:
        await until_healthy(origin, within_s=0.6)


async def test_a_gateway_that_is_not_there_is_named() -> None:
    """Nothing was heard at all."""
    with pytest.raises(PartFailed, match="the gateway does not answer"):
        await until_healthy("http://127.0.0.1:9", within_s=0.6)
