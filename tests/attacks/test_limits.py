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
from tests.support.fake_provider import Plan, Seen, fake_provider
from tests.support.ordinary_user import UID
from tests.support.runner import run_runner, run_runner_as_user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.contract.events import RunEvent
    from tests.attacks.conftest import Verdicts
    from tests.support.runner import RunningRunner

PLACES = ["root", "user"] if os.geteuid() == 0 else ["user"]
BOMBS = {
    "memory": (
        "Take the host's memory",
        "python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 24))'",
        "out-of-memory",
        "900 MB",
    ),
    "processes": (
        "Take the host's processes (fork bomb)",
        "bomb() { bomb | bomb & }; bomb; sleep 60",
        "too-many-processes",
        "120",
    ),
    "disk": (
        "Take the host's disk",
        "for i in $(seq 20); do head -c 20M /dev/zero > ~/$i; done; sleep 60",
        "disk-full",
        "100 MB",
    ),
    "inodes": (
        "Take the host's inodes",
        "python3 -c 'for i in range(30000): open(str(i), \"w\").close()'; sleep 60",
        "disk-full",
        "100 MB",
    ),
    "time": ("Run for ever", "while :; do sleep 1; done", "timeout", "25"),
}

pytestmark = pytest.mark.timeout(180)


@contextmanager
def runner_at(place: str, base_url: str) -> Iterator[RunningRunner]:
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="opencode-limits-"))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        base.chmod(0o711)
        as_user = place == "user"
        if as_user and os.geteuid() == 0:
            os.chown(base, UID, UID)
        start = run_runner_as_user if as_user else run_runner
        yield stack.enter_context(
            start(
                base,
                OPENAI_BASE_URL=base_url,
                MODELS="openai/scripted",
                RUNNER_MEMORY_MB="900",
                RUNNER_PIDS="120",
                RUNNER_DISK_MB="100",
                RUNNER_RUN_TIMEOUT_S="25",
                MAX_CONCURRENT_PROCESSES="3",
            )
        )


def bomb_of(seen: Seen) -> Plan:
    """The prompt names the bomb; anybody else just talks."""
    prompt = str(seen.body["input"])
    for name, (_, script, *_rest) in BOMBS.items():
        if f"bomb-{name}" in prompt:
            return Plan(tools=[("bash", {"command": script, "description": "x"})])
    return Plan()


async def bombed(place: str) -> dict[str, list[RunEvent]]:
    """Return the events of a run for each bomb, three of them at a time."""
    async with fake_provider() as provider:
        provider.plan = bomb_of
        with runner_at(place, provider.base_url) as runner:
            runs = [
                asyncio.create_task(runner.run(f"bomb-{name}", subject=name, key="k"))
                for name in BOMBS
            ]
            told = await asyncio.gather(*runs)
            assert runner.sandboxes == []
    return dict(zip(BOMBS, told, strict=True))


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """Whose runner."""
    return str(request.param)


@pytest.fixture(scope="module")
def told(place: str) -> dict[str, list[RunEvent]]:
    """What became of all bombs there."""
    return asyncio.run(bombed(place))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_its_run_with_a_reason(
    name: str, place: str, told: dict[str, list[RunEvent]], verdicts: Verdicts
) -> None:
    """Though a tool hits the limit, not OpenCode itself; the sentence names the limit."""
    title, _, code, words = BOMBS[name]
    end = told[name][-1]
    assert isinstance(end, events.RunFailed), end

    verdicts.note(title, held=end.code == code)
    assert end.code == code, end
    assert words in end.message
