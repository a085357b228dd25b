"""A container that could not do its job safely does not start, and says what to mend."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.compose import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.compose import ComposeStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

WEAK = "please-change-me-now-42"
NAMESPACES = f"seccomp={ROOT}/deploy/seccomp.json"


def refusal(stack: ComposeStack, service: str, *options: str, **environment: str) -> str:
    """Run an image on its own; return what it says before it ends, which it has to."""
    variables = {"ENVIRONMENT": "production", **environment}
    image = f"{stack.environ['IMAGE_PREFIX']}/{service}:{stack.environ['APP_VERSION']}"
    command = ["docker", "run", "--rm", "--init", "--cap-drop", "ALL", *options]
    command += [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    ended = subprocess.run(
        [*command, image],
        env=stack.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        pytest.param([], "seccomp=deploy/seccomp.json", id="docker's own profile"),
        pytest.param(["--security-opt", NAMESPACES], "a volume of the type proc", id="masked proc"),
    ],
)
def test_a_runner_that_can_make_no_sandbox_says_what_it_takes(
    built: ComposeStack, options: list[str], advice: str
) -> None:
    """It never falls back to something weaker."""
    words = refusal(built, "runner", *options, RUNNER_TOKEN=built.secret("runner_token"))

    assert advice in words
    assert "Traceback" not in words


def test_runner_and_gateway_refuse_a_weak_token(built: ComposeStack) -> None:
    """Naming it, without showing it."""
    others = {
        name.upper(): built.secret(name)
        for name in ("pb_superuser_password", "key_encryption_keys", "key_sealing_key")
    }

    words = refusal(built, "runner", RUNNER_TOKEN=WEAK)
    words += refusal(built, "gateway", RUNNER_TOKEN=WEAK, **others)

    assert words.count("RUNNER_TOKEN is too weak for ENVIRONMENT=production") == 2
    assert WEAK not in words


def test_pocketbase_refuses_a_weak_superuser(built: ComposeStack, tmp_path: Path) -> None:
    """Before it serves anything."""
    tmp_path.chmod(0o755)
    (tmp_path / "password").write_text(WEAK)
    (tmp_path / "password").chmod(0o444)

    words = refusal(
        *(built, "pocketbase", "-v", f"{tmp_path}/password:/password:ro"),
        PB_SUPERUSER_EMAIL="admin@example.com",
        PB_SUPERUSER_PASSWORD_FILE="/password",
    )

    assert "PB_SUPERUSER_PASSWORD is too weak for ENVIRONMENT=production" in words
    assert WEAK not in words
