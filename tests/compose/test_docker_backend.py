"""Sandboxes as containers beside the stack's: `compose.docker.yaml`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.spawner.profile import LABEL_RUN
from tests.compose.provider import ENDLESS
from tests.support.compose import FILES, eventually, health, taken_down

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose import Caller, ComposeStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

APP = 10001


@pytest.fixture(scope="module")
def stack(built: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """A stack of its own, with a spawner, up and healthy."""
    if os.geteuid() != 0:
        pytest.skip("takes root to prepare the directory that engine and runner share")
    shared = tmp_path_factory.mktemp("sandboxes")
    for parent in (shared, *shared.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o001)
    os.chown(shared, APP, APP)
    socket = Path(built.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")[len("unix://") :])
    own = {
        "SANDBOXES_DIR": str(shared),
        "DOCKER_SOCKET": str(socket),
        "DOCKER_GID": str(socket.stat().st_gid),
    }
    beside = built.another("docker")
    containers = replace(
        beside, environ={**beside.environ, **own}, files=(*FILES, "compose.docker.yaml")
    )
    containers.compose("build", "--quiet", "spawner", "sandbox")
    with taken_down(containers):
        containers.compose("up", "--detach", "--no-build")
        containers.until_healthy()
        yield containers
    assert containers.left() == []
    assert sandboxes(containers) == []


def sandboxes(stack: ComposeStack) -> list[str]:
    """Return the containers of runs, running or not."""
    label = f"label={LABEL_RUN}"
    image = f"ancestor={stack.environ['IMAGE_PREFIX']}/sandbox:{stack.environ['APP_VERSION']}"
    return stack.docker("ps", "-aq", "--filter", label, "--filter", image).split()


def test_a_prompt_is_answered_from_a_container(stack: ComposeStack, anna: Caller) -> None:
    """And the container is gone."""
    assert health(stack.origin)["runner"]["sandbox"]["backend"] == "docker"

    assert "Hello from the provider." in anna.text("say hello")

    eventually(lambda: not sandboxes(stack), "a container is left")


def test_only_the_spawner_holds_the_socket(stack: ComposeStack) -> None:
    """And it has nothing else: no network, no secret, no capability, nothing it may write."""
    assert "No such file" in stack.inside("runner", "ls /var/run/docker.sock /run/docker.sock")

    spawner = stack.inspect("spawner")

    assert spawner["HostConfig"]["NetworkMode"] == "none"
    assert spawner["HostConfig"]["CapDrop"] == ["ALL"]
    assert spawner["HostConfig"]["ReadonlyRootfs"] is True
    assert spawner["Config"]["User"] == "app"
    assert "/run/secrets" not in {mount["Destination"] for mount in spawner["Mounts"]}


def test_containers_end_with_a_killed_runner(stack: ComposeStack, anna: Caller) -> None:
    """In the middle of a run; the runner that the engine starts again goes on."""
    anna.read(anna.start(ENDLESS), until="text.delta")
    assert len(sandboxes(stack)) == 1

    stack.kill_main_process("runner")

    eventually(lambda: not sandboxes(stack), "a container outlives its runner")
    stack.until_healthy()
    assert "Hello from the provider." in anna.text("say hello again")
