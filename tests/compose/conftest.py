"""One stack of containers for all tests: built, brought up, and taken down again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import unused_port

from stack.generate import CONTAINER_USER, for_containers
from tests.support.compose import ComposeStack, new_user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose import Caller

_ENGINE = str(Path(__file__).with_name("engine.sh"))
_SKIPPED = 77
OPERATOR_KEY = "sk-operator-5c0ffee5"
_IMAGES = {"IMAGE_PREFIX": "opencode-multiuser-test", "APP_VERSION": "test"}


@pytest.fixture(scope="session")
def engine() -> Iterator[dict[str, str]]:
    """The environment that leads to an engine; without one the tests are skipped."""
    found = subprocess.run([_ENGINE, "up"], capture_output=True, text=True, check=False)
    if found.returncode == _SKIPPED:
        pytest.skip(found.stderr.strip().splitlines()[-1])
    assert found.returncode == 0, found.stderr
    lines = (line.partition("=") for line in found.stdout.splitlines())
    yield {**os.environ, **{name: value for name, _, value in lines}}
    subprocess.run([_ENGINE, "down"], check=False)


@pytest.fixture(scope="session")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make secrets` makes, and the operator's key."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    for_containers(folder)
    key = folder / "openai_api_key"
    key.chmod(0o600)
    key.write_text(f"{OPERATOR_KEY}\n")
    key.chmod(0o400 if os.geteuid() == 0 else 0o444)
    return folder


@pytest.fixture(scope="session")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the containers' user may write into."""
    folder = tmp_path_factory.mktemp("backups")
    if os.geteuid() == 0:
        os.chown(folder, CONTAINER_USER, CONTAINER_USER)
    else:
        folder.chmod(0o777)
    return folder


@pytest.fixture(scope="session")
def environ(engine: dict[str, str], secrets_dir: Path, backups: Path) -> dict[str, str]:
    """What the operator has set."""
    return {
        **engine,
        **_IMAGES,
        "COMPOSE_PROJECT_NAME": f"ocm-test-{os.getpid()}",
        "GATEWAY_PORT": str(unused_port()),
        "SECRETS_DIR": str(secrets_dir),
        "BACKUP_DIR": str(backups),
        "GATEWAY_RECONCILE_S": "2",
        "RUNNER_WARM_POOL": "0",
    }


@pytest.fixture(scope="session")
def built(environ: dict[str, str]) -> ComposeStack:
    """The images, built."""
    stack = ComposeStack(program=("docker", "compose"), environ=environ)
    stack.compose("build", "--quiet")
    return stack


@pytest.fixture(scope="session")
def stack(built: ComposeStack) -> Iterator[ComposeStack]:
    """The stack, up and healthy."""
    try:
        built.compose("up", "--detach", "--wait", "--no-build")
        built.until_healthy()
        yield built
    finally:
        built.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
    assert built.left() == []


@pytest.fixture
def anna(stack: ComposeStack, secrets_dir: Path) -> Caller:
    """A user nobody else has."""
    password = (secrets_dir / "pb_superuser_password").read_text().strip()
    return new_user(stack.origin, password)
