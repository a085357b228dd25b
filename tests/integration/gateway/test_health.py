"""Whether the parts are there, for everybody to see."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pydantic import SecretStr

from runner.contract.requests import OpenCodeHealth
from tests.support.gateway import gateway_settings, run_gateway

if TYPE_CHECKING:
    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase

HEALTH = "/opencode/health"


async def test_liveness_asks_nobody(pocketbase: RunningPocketBase) -> None:
    """`/test` answers whatever the other parts do, GET and HEAD."""
    settings = gateway_settings(pocketbase, pocketbase_url="http://127.0.0.1:1")
    async with run_gateway(settings) as gateway:
        async with gateway.request("GET", "/test") as response:
            body = await response.json()
        async with gateway.request("HEAD", "/test") as head:
            assert (head.status, await head.read()) == (200, b"")

    assert body == {"status": "ok", "service": "gateway", "version": body["version"]}
    assert body["version"][0].isdigit()


async def test_health_shows_every_part(gateway: RunningGateway) -> None:
    """All parts up: ok, without signing in."""
    async with gateway.request("GET", HEALTH) as response:
        body = await response.json()

    assert response.status == 200
    assert body["status"] == "ok"
    assert body["pocketbase"] == {"status": "ok"}
    assert body["runner"]["status"] == "ok"
    assert body["runner"]["pool"] == {"size": 2, "idle": 1, "booting": 1}
    assert body["opencode"] == {"status": "ok", "version": "1.2.3", "reason": None}
    assert body["queue"] == {"slots": 10, "running": 1, "waiting": 0, "size": 100}
    assert response.headers["Cache-Control"] == "no-store"


async def test_health_without_opencode_is_down(gateway: RunningGateway, runner: FakeRunner) -> None:
    """A runner that can't start OpenCode can't do the main job."""
    runner.opencode = OpenCodeHealth(status="down", reason="not installed")

    async with gateway.request("GET", HEALTH) as response:
        body = await response.json()

    assert response.status == 503
    assert response.headers["Retry-After"]
    assert (body["status"], body["opencode"]["reason"]) == ("down", "not installed")


async def test_health_without_runner_is_down(pocketbase: RunningPocketBase) -> None:
    """No runner: down, soon, with what is known of the rest."""
    async with (
        run_gateway(gateway_settings(pocketbase)) as gateway,
        asyncio.timeout(10),
        gateway.request("GET", HEALTH) as response,
    ):
        body = await response.json()

    assert response.status == 503
    assert body["pocketbase"] == {"status": "ok"}
    assert (body["runner"]["status"], body["opencode"]["status"]) == ("down", "unknown")
    assert body["queue"] is None


async def test_health_with_a_refused_service_account_is_down(
    pocketbase: RunningPocketBase, runner: FakeRunner
) -> None:
    """Without its account the gateway can't read keys: no run is possible."""
    settings = gateway_settings(
        pocketbase, runner_url=runner.url, pb_superuser_password=SecretStr("wrong")
    )
    async with run_gateway(settings) as gateway, gateway.request("GET", HEALTH) as response:
        body = await response.json()

    assert response.status == 503
    assert body["pocketbase"] == {"status": "down"}


async def test_runner_that_answers_with_something_else_is_down(
    pocketbase: RunningPocketBase,
) -> None:
    """Another program on the runner's port is no runner."""
    settings = gateway_settings(pocketbase, runner_url=pocketbase.url)
    async with run_gateway(settings) as gateway, gateway.request("GET", HEALTH) as response:
        body = await response.json()

    assert response.status == 503
    assert body["runner"]["status"] == "down"
