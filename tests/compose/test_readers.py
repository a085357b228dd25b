"""Everything that reads compose files can read ours: `docker compose` is what the others use."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.compose import FILES, SERVICES, new_user, taken_down

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose import ComposeStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

_LOCK = Path(__file__).with_name("docker-compose-1.lock")
_CACHE = Path(__file__).parents[2] / ".cache"


@pytest.fixture(scope="module")
def docker_compose() -> str:
    """docker-compose 1.29.2, in a virtual environment of its own."""
    venv = _CACHE / f"docker-compose-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}"
    program = venv / "bin" / "docker-compose"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*pip, "-r", str(_LOCK)], capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"docker-compose 1.29.2 can't be installed here: {done.stderr[-300:]}")
    return str(program)


@pytest.fixture
def old_stack(built: ComposeStack, docker_compose: str) -> Iterator[ComposeStack]:
    """The stack, brought up by docker-compose 1.29.2."""
    with taken_down(built.another("old", program=[docker_compose])) as stack:
        stack.compose("up", "--detach", "--no-build")
        stack.until_healthy()
        yield stack


def test_docker_compose_1_29_runs_it(old_stack: ComposeStack) -> None:
    """The main job, with the same walls; and nothing is left of it."""
    answer = new_user(old_stack).text("say hello")

    assert answer == "Hello from the provider.\n[✔ User Anna - Fertig!]\n"
    runner = old_stack.inspect("runner")["HostConfig"]
    assert runner["ReadonlyRootfs"]
    assert runner["CapDrop"] == ["ALL"]
    assert any("seccomp" in option for option in runner["SecurityOpt"])
    old_stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
    assert old_stack.left() == []


def test_docker_stack_deploy_reads_it(built: ComposeStack) -> None:
    """compose.yaml is the base of a stack; what only one host knows is not in it."""
    known = subprocess.run(
        ["docker", "stack", "config", "--help"],
        env=built.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if "--compose-file" not in known.stdout:
        pytest.skip("this docker has no `docker stack config`")

    files = [word for file in (FILES[0], "compose.swarm.yaml") for word in ("-c", file)]
    read = yaml.safe_load(built.docker("stack", "config", *files))

    for service in SERVICES:
        assert read["services"][service]["read_only"] is True
        assert read["services"][service]["deploy"]["endpoint_mode"] == "dnsrr"
    assert read["networks"]["accounts"] == {"driver": "overlay", "internal": True}


@pytest.mark.parametrize("profile", ["edge", "tools"])
def test_profiles_are_read(built: ComposeStack, profile: str) -> None:
    """By version 2; version 1 has them from 1.28 on."""
    assert profile in built.compose("config", "--profiles").split()
