"""Settings → backend; fails closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.contract.problems import SandboxUnavailable
from runner.sandbox.bubblewrap import BubblewrapBackend
from runner.sandbox.process import ProcessBackend

if TYPE_CHECKING:
    from runner.sandbox.base import SandboxBackend
    from runner.settings import Settings


def select_backend(settings: Settings) -> SandboxBackend:
    """Return the backend the operator asked for, never another one.

    Raises:
        SandboxUnavailable: There is no such backend yet.
    """
    match settings.runner_sandbox:
        case "bubblewrap":
            return BubblewrapBackend()
        case "process":
            return ProcessBackend()
        case "docker":
            raise SandboxUnavailable(
                reason="RUNNER_SANDBOX=docker is not built yet; use RUNNER_SANDBOX=bubblewrap"
            )
