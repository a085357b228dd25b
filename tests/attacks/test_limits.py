"""Bombs through the real path: the run ends with a reason that a person understands."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.attacks.registry import BOMBS
from tests.support.fake_provider import Plan, Seen, fake_provider
from tests.support.ordinary_user import UID
from tests.support.runner import run_runner, run_runner_as_user
from tests.support.spawner import run_spawner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.contract.events import RunEvent
    from tests.attacks.conftest import Verdicts
    from tests.support.runner import RunningRunner

PLACES = ["root", "user", "docker"] if os.geteuid() == 0 else ["user"]
pytestmark = pytest.mark.timeout(240)


@contextmanager
def runner_at(place: str, base_url: str, **patience: str) -> Iterator[RunningRunner]:
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="opencode-limits-"))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        base.chmod(0o711)
        as_user = place == "user"
        if as_user and os.geteuid() == 0:
            os.chown(base, UID, UID)
        start = run_runner_as_user if as_user else run_runner
        if place == "docker":
            spawner = stack.enter_context(run_spawner(base / "data" / "sandboxes"))
            patience |= {"RUNNER_SANDBOX": "docker", "RUNNER_SPAWNER_SOCKET": str(spawner.socket)}
        yield stack.enter_context(
            start(
                base,
                OPENAI_BASE_URL=base_url,
                MODELS="openai/scripted",
                RUNNER_MEMORY_MB="900",
                RUNNER_PIDS="120",
                RUNNER_DISK_MB="100",
                **patience,
            )
        )


def bomb_of(seen: Seen) -> Plan:
    """The prompt names the bomb; anybody else just talks."""
    prompt = str(seen.body["input"])
    for name, (_, script, *_rest) in BOMBS.items():
        if f"bomb-{name}" in prompt:
            return Plan(tools=[("bash", {"command": script, "description": "x"})])
    return Plan()


async def bombed(place: str) -> dict[str, RunEvent]:
    """Return how each bomb's run ended, all going off at once."""
    patient = {"RUNNER_RUN_TIMEOUT_S": "150", "RUNNER_ATTACH_GRACE_S": "30"}
    patience = {
        "timeout": {"RUNNER_RUN_TIMEOUT_S": "40"},
        "idle-timeout": patient | {"RUNNER_IDLE_TIMEOUT_S": "10"},
    }
    # Docker's containers have one share of the CPU together: so many boots would take too long.
    at_once = asyncio.Semaphore(2 if place == "docker" else len(BOMBS))
    async with fake_provider() as provider:
        provider.plan = bomb_of

        async def end_of(name: str, code: str) -> RunEvent:
            limits = patience.get(code, patient)
            async with at_once:
                with runner_at(place, provider.base_url, **limits) as runner:
                    told = await runner.run(f"bomb-{name}", key="k")
                    assert runner.sandboxes == []
                    return told[-1]

        ends = [end_of(name, code) for name, (_, _, code, _) in BOMBS.items()]
        return dict(zip(BOMBS, await asyncio.gather(*ends), strict=True))


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """Whose runner."""
    return str(request.param)


@pytest.fixture(scope="module")
def ends(place: str) -> dict[str, RunEvent]:
    """What became of all bombs there."""
    return asyncio.run(bombed(place))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_its_run_with_a_reason(
    name: str, place: str, ends: dict[str, RunEvent], verdicts: Verdicts
) -> None:
    """Though a tool hits the limit, not OpenCode itself; the sentence names the limit."""
    title, _, code, words = BOMBS[name]
    end = ends[name]
    assert isinstance(end, events.RunFailed), end

    verdicts.note(title, held=end.code == code)
    assert end.code == code, end
    assert words in end.message
