"""How the runner is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runner.agents import opencode
from runner.contract.problems import OpenCodeUnavailable
from runner.contract.requests import (
    OpenCodeHealth,
    PoolHealth,
    QueueHealth,
    RunnerHealth,
    SandboxHealth,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.models.local import LocalModel
    from runner.pool.warm import WarmPool
    from runner.sandbox.base import Limits, SandboxBackend
    from runner.scheduler.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Looks at the parts when asked."""

    version: str
    binary: Callable[[], Path]
    scheduler: Scheduler
    backend: SandboxBackend
    limits: Limits
    local: LocalModel | None
    pool: WarmPool | None
    is_draining: Callable[[], bool]

    def look(self) -> RunnerHealth:
        """Return the state of every part."""
        agent = self._opencode()
        local = self.local.state if self.local is not None else None
        draining = self.is_draining()
        well = local in {None, "ok"} and not draining
        status: Literal["ok", "degraded", "down"] = "ok" if well else "degraded"
        return RunnerHealth(
            status="down" if agent.status == "down" else status,
            draining=draining,
            version=self.version,
            opencode=agent,
            queue=QueueHealth(
                slots=self.scheduler.slots,
                running=self.scheduler.running,
                waiting=self.scheduler.waiting,
                size=self.scheduler.queue_size,
            ),
            pool=self._pool(),
            sandbox=SandboxHealth(
                backend=self.backend.name, limits=dict(self.backend.enforced(self.limits))
            ),
            models={"local/smollm2-135m": local} if local else {},
        )

    def _pool(self) -> PoolHealth:
        if self.pool is None:
            return PoolHealth()
        return PoolHealth(
            size=self.pool.bounds.size, idle=self.pool.idle, booting=self.pool.booting
        )

    def _opencode(self) -> OpenCodeHealth:
        try:
            binary = self.binary()
        except OpenCodeUnavailable:
            return OpenCodeHealth(
                status="down", reason="OpenCode's binary is missing: run `make setup`"
            )
        return OpenCodeHealth(status="ok", version=opencode.version_of(binary))
