"""A runner of another release: one apart is tolerated, two are refused in clear words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.contract import headers
from runner.contract.requests import OpenCodeHealth
from runner.contract.version import CONTRACT
from tests.support.fake_runner import FINISHED, STARTED, playing, text
from tests.support.gateway import problem_of

if TYPE_CHECKING:
    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import User

UNKNOWN: dict[str, Any] = {"type": "mood.changed", "mood": {"from": "good", "to": "better"}}


class NewerHealth(OpenCodeHealth):
    """What a newer runner may tell."""

    colour: str = "green"


async def test_what_a_newer_runner_adds_is_passed_on(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Kinds of events and fields nobody here knows reach readers as they came; text does not."""
    runner.contract = CONTRACT + 1
    runner.opencode = NewerHealth(status="ok", version="9.9.9")
    started = STARTED | {"weather": "fine"}
    runner.script = playing(started, UNKNOWN, text("Hallo"), FINISHED)

    async with gateway.stream(alice, accept="application/x-ndjson") as response:
        told = [json.loads(line) for line in (await response.text()).splitlines()]
    async with gateway.stream(alice, accept="text/event-stream") as response:
        events = await response.text()
    async with gateway.stream(alice, prompt="Noch einmal") as response:
        words = await response.text()
    async with gateway.request("GET", "/opencode/health") as response:
        health = await response.json()

    assert [event["type"] for event in told] == [
        *("run.started", "mood.changed", "text.delta", "run.finished")
    ]
    assert told[0]["weather"] == "fine"
    assert told[1]["mood"] == UNKNOWN["mood"]
    assert "event: mood.changed" in events
    assert words == "Hallo\n[✔ User Älice Ünger - Fertig!]\n"
    assert (response.status, health["opencode"]["version"]) == (200, "9.9.9")


async def test_an_older_runner_is_told_which_gateway_asks(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """So that it can decide; what it answers is enough."""
    runner.contract = CONTRACT - 1

    async with gateway.stream(alice) as response:
        assert response.status == 200

    assert runner.headers[0][headers.CONTRACT] == str(CONTRACT)


async def test_two_releases_apart_is_refused_in_clear_words(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """For callers a problem with its own code, for operators the reason on the health page."""
    runner.contract = CONTRACT + 2

    async with gateway.stream(alice) as response:
        problem = await problem_of(response)
    async with gateway.request("GET", "/opencode/health") as health:
        told = await health.json()

    assert (response.status, problem["code"]) == (503, "contract-mismatch")
    assert f"Runner (Vertrag {CONTRACT + 2})" in problem["error"]
    assert (health.status, told["runner"]["status"]) == (503, "down")
    assert "bring both to the same release" in told["runner"]["reason"]
