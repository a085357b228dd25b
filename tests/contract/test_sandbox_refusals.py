"""A host that can't make sandboxes is refused, with the setting to change; nothing falls back."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner.contract.problems import SandboxUnavailable
from runner.sandbox.bubblewrap import BubblewrapBackend
from runner.sandbox.docker import DockerBackend
from runner.sandbox.process import ProcessBackend
from runner.sandbox.select import select_backend
from runner.settings import Settings
from tests.support.ordinary_user import REPOSITORY, as_ordinary_user

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_NAMESPACES = """
import asyncio, ctypes, os
from pathlib import Path
from runner.contract.problems import SandboxUnavailable
from runner.sandbox.bubblewrap import BubblewrapBackend

uid, gid = os.getuid(), os.getgid()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000) == 0  # a user namespace, whose switch is our own to set
for name, value in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                    ("gid_map", f"{gid} {gid} 1")):
    Path("/proc/self", name).write_text(value)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
try:
    asyncio.run(BubblewrapBackend().check())
except SandboxUnavailable as refusal:
    print(refusal.params["reason"])
"""


def test_kernel_without_user_namespaces_is_refused_with_advice() -> None:
    """The reason names the switch, which here is really off."""
    with as_ordinary_user([sys.executable, "-c", WITHOUT_NAMESPACES]) as command:
        result = subprocess.run(
            command.argv,
            pass_fds=command.fds,
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )

    assert "sysctl user.max_user_namespaces=" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("name", "backend"),
    [("bubblewrap", BubblewrapBackend), ("docker", DockerBackend), ("process", ProcessBackend)],
)
def test_operator_gets_the_backend_asked_for(name: str, backend: type, tmp_path: Path) -> None:
    """Settings decide, and nothing else."""
    settings = Settings.model_validate(
        {"runner_token": "x", "runner_sandbox": name, "runner_spawner_socket": tmp_path / "socket"}
    )

    assert isinstance(select_backend(settings, tmp_path), backend)


async def test_docker_without_a_spawner_is_refused(tmp_path: Path) -> None:
    """Docker is asked for: Docker or nothing; the reason names what to start."""
    asked = {"runner_token": "x", "runner_sandbox": "docker"}
    with pytest.raises(SandboxUnavailable) as refusal:
        select_backend(Settings.model_validate(asked), tmp_path)
    assert "RUNNER_SPAWNER_SOCKET" in str(refusal.value.params["reason"])

    with pytest.raises(SandboxUnavailable) as refusal:
        await DockerBackend(tmp_path / "socket", tmp_path, patience_s=0).check()
    assert "python -m runner.spawner" in str(refusal.value.params["reason"])
