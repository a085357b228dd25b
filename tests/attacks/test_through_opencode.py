"""Attacks through the real path: the model orders them, OpenCode's tools carry them out.

One run carries them all; each test looks at one. On the `process` backend, which promises
nothing, a test only finds out whether the attack works, for the table in docs/security.md.
"""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.attacks.conftest import CONTAINER
from tests.attacks.registry import ATTACKS, LEAVE, PLANT, RAN, Attack
from tests.support.assault import CANARY, Assault, carry_out
from tests.support.compose import ROOT, built_stack, taken_down

if TYPE_CHECKING:
    from tests.attacks.conftest import Verdicts

PLACES = {
    "root": {"backend": "bubblewrap", "as_user": False},
    "user": {"backend": "bubblewrap", "as_user": True},
    "docker": {"backend": "docker", "as_user": False},
    "process": {"backend": "process", "as_user": True},
}
if os.geteuid() != 0:
    del PLACES["root"], PLACES["docker"]

pytestmark = pytest.mark.timeout(300)


@cache
def assault_on(place: str) -> Assault:
    """Return what came of all attacks at *place*; they are carried out once."""
    if place == "container":
        return carry_out_in_container()
    return carry_out([PLANT, LEAVE, *ATTACKS], **PLACES[place])  # type: ignore[arg-type]


def carry_out_in_container() -> Assault:
    """Return what came of them where runner, provider and all are in the runner's container."""
    with taken_down(built_stack().another("assault")) as project:
        done = subprocess.run(
            project.runner_program("-m", "tests.support.in_container", "assault"),
            env=project.environ,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
    assault: Assault = pickle.loads(base64.b64decode(done.stdout.splitlines()[-1]))
    return assault


@pytest.fixture(params=[*PLACES, CONTAINER])
def place(request: pytest.FixtureRequest) -> str:
    """Whose runner with which backend."""
    return str(request.param)


@pytest.fixture
def assault(place: str) -> Assault:
    """What came of all attacks there."""
    return assault_on(place)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_attack_fails(attack: Attack, place: str, assault: Assault, verdicts: Verdicts) -> None:
    """The tool's own output shows it."""
    output = assault.outputs[attack.id]
    assert RAN in output or attack.tool[0] != "bash", output

    held = attack.held(output)

    verdicts.note(attack.title, held=held)
    assert held or place == "process", output


def test_no_daemon_outlives_the_run(place: str, assault: Assault, verdicts: Verdicts) -> None:
    """Neither a background job, nor one in a session of its own, nor one without environment."""
    verdicts.note(
        "Leave a daemon behind (double fork, setsid, no environment)", held=not assault.strays
    )

    assert not assault.strays or place == "process"


def test_removal_follows_no_link(place: str, assault: Assault, verdicts: Verdicts) -> None:
    """What the workspace's links led to is as it was; of the runs nothing is left."""
    held = assault.precious == "precious" and not assault.left
    verdicts.note("Have the clean-up follow a link out of the workspace", held=held)

    assert held, (assault.precious, assault.left)


def test_host_folder_is_untouched(place: str, assault: Assault) -> None:
    """No attack at all has written there."""
    assert assault.outside == ["precious", "socket"] or place == "process"


def test_keys_are_with_runner_and_provider_only(
    place: str, assault: Assault, verdicts: Verdicts
) -> None:
    """No file, environment, command line, log, event, output or sandbox's memory holds one."""
    held = not assault.key_found_in
    verdicts.note("Have an API key in a file, log, environment or in a sandbox's memory", held=held)

    assert held or place == "process", assault.key_found_in
    assert CANARY not in str(assault.told) or place == "process"
    assert assault.key_in_runner or os.geteuid() != 0, "the search finds nothing anywhere"


def test_neighbour_and_attacker_end_well(assault: Assault) -> None:
    """All of it disturbed neither run."""
    assert isinstance(assault.told[-1], events.RunFinished), assault.told[-1]
    assert isinstance(assault.neighbour_ended, events.RunFinished), assault.neighbour_ended
