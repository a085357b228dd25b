"""The main job through containers, and what they promise when they are restarted or killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.compose.provider import ENDLESS, LONG, LONG_PIECES
from tests.support.compose import SERVICES, eventually, health, text_of

if TYPE_CHECKING:
    from tests.support.compose import Caller, ComposeStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


def sandboxes(stack: ComposeStack) -> list[str]:
    """Return the directories of sandboxes there are."""
    return stack.inside("runner", "ls /data/sandboxes").split()


def test_everything_is_healthy(stack: ComposeStack) -> None:
    """Each container by its own check, and the gateway says it of all."""
    states = {name: stack.inspect(name)["State"]["Health"]["Status"] for name in SERVICES}

    assert set(states.values()) == {"healthy"}
    found = health(stack.origin)
    assert found["status"] == "ok"
    assert found["runner"]["sandbox"]["backend"] == "bubblewrap"


def test_a_prompt_is_answered(anna: Caller) -> None:
    """Sign in, ask, read: PocketBase, gateway, runner, OpenCode in its sandbox, provider."""
    answer = anna.text("say hello")

    assert answer == "Hello from the provider.\n[✔ User Anna - Fertig!]\n"


def test_a_run_is_cancelled_and_leaves_nothing(stack: ComposeStack, anna: Caller) -> None:
    """The text has begun to come; the provider would never end."""
    run = anna.start(ENDLESS)
    anna.read(run, until="text.delta")

    anna.call("DELETE", f"/opencode/runs/{run}")

    assert anna.read(run)[-1]["type"] == "run.cancelled"
    eventually(lambda: not sandboxes(stack), "a sandbox's directory is left")
    assert "opencode" not in stack.inside("runner", "cat /proc/[0-9]*/comm")


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_gateway_and_pocketbase_may_go_in_the_middle(
    stack: ComposeStack, anna: Caller, how: str
) -> None:
    """The run goes on; its reader comes back and misses nothing; its record is complete."""
    run = anna.start(f"{LONG} {how}")
    anna.read(run, until="text.delta")

    _end(stack, how, "gateway", "pocketbase")

    events = anna.read(run)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert text_of(events) == "".join(LONG_PIECES)
    assert events[-1]["type"] == "run.finished"
    stack.until_healthy()
    eventually(lambda: _status(anna, run) == "finished", "PocketBase has no record of the end")


def test_a_restarted_runner_lets_runs_end(stack: ComposeStack, anna: Caller) -> None:
    """It takes no new run meanwhile; then it starts again, and reads what it had told."""
    run = anna.start(f"{LONG} drained")
    anna.read(run, until="text.delta")

    stack.compose("restart", "runner")

    events = anna.read(run)
    assert text_of(events) == "".join(LONG_PIECES)
    assert events[-1]["type"] == "run.finished"
    stack.until_healthy()


def test_a_killed_runner_tells_what_it_knew(stack: ComposeStack, anna: Caller) -> None:
    """The run ends as failed, with every event before; the next one works, nothing is left."""
    run = anna.start(ENDLESS)
    anna.read(run, until="text.delta")

    _end(stack, "kill", "runner")

    events = anna.read(run)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert "and so on" in text_of(events)
    assert events[-1]["type"] == "run.failed"
    assert events[-1]["code"] == "runner-restarted"
    stack.until_healthy()
    assert sandboxes(stack) == []
    assert "Hello from the provider." in anna.text("say hello again")


def _end(stack: ComposeStack, how: str, *services: str) -> None:
    """Restart *services*, or kill their main processes and wait for the engine to start them."""
    if how == "restart":
        stack.compose("restart", *services)
        return
    before = {service: stack.restarts(service) for service in services}
    for service in services:
        stack.kill_main_process(service)
    for service in services:
        eventually(
            lambda service=service: stack.restarts(service) > before[service],
            f"{service} was not started again",
        )


def _status(caller: Caller, run: str) -> str:
    """Return the run's status as PocketBase has it."""
    try:
        return str(caller.call("GET", f"/api/collections/runs/records/{run}")["status"])
    except (OSError, json.JSONDecodeError, KeyError):
        return ""
