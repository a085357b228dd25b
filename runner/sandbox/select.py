"""Settings → backend; fails closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.contract.problems import SandboxUnavailable
from runner.sandbox.bubblewrap import BubblewrapBackend
from runner.sandbox.docker import DockerBackend
from runner.sandbox.process import ProcessBackend

if TYPE_CHECKING:
    from pathlib import Path

    from runner.sandbox.base import SandboxBackend
    from runner.settings import Settings


def select_backend(settings: Settings, runs: Path) -> SandboxBackend:
    """Return the backend the operator asked for, never another one.

    Run directories will be in *runs*.

    Raises:
        SandboxUnavailable: A setting that it needs is missing, or it is not for production.
    """
    match settings.runner_sandbox:
        case "bubblewrap":
            return BubblewrapBackend()
        case "process":
            if settings.environment == "production":
                raise SandboxUnavailable(
                    reason="RUNNER_SANDBOX=process keeps nobody apart: not in production"
                )
            return ProcessBackend()
        case "docker":
            if settings.runner_spawner_socket is None:
                raise SandboxUnavailable(
                    reason="RUNNER_SANDBOX=docker needs RUNNER_SPAWNER_SOCKET, where"
                    " `python -m runner.spawner` listens"
                )
            return DockerBackend(settings.runner_spawner_socket, runs)
