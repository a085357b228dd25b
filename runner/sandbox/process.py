"""Backend `process`: a plain process with a HOME of its own. For development only.

It keeps nobody apart: a tool can read whatever the runner's user can. It is here so that the
rest can be worked on where a kernel has no namespaces, and it says so loudly.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from runner.contract.problems import OpenCodeUnavailable, SandboxUnavailable
from runner.plumbing.cleanup import finish
from runner.sandbox.base import Inside, Limits, Sandbox, SandboxBackend, SandboxSpec
from runner.sandbox.launcher import Launch, launched
from runner.sandbox.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SWEEPS = 100
_SWEEP_PAUSE_S = 0.02  # a killed process is not gone at once
_SYSTEM_PATH = (Path("/usr/local/bin"), Path("/usr/bin"), Path("/bin"))


class ProcessBackend:
    """Start commands with the runner's own rights."""

    name = "process"
    door_is_identity = False

    def enforced(self, limits: Limits) -> Mapping[str, str]:
        """See `SandboxBackend.enforced`."""
        del limits
        return {
            **dict.fromkeys(("memory", "processes", "cpus", "disk"), "nothing"),
            **dict.fromkeys(("open_files", "file_size"), "rlimit"),
        }

    async def check(self) -> None:
        """See `SandboxBackend.check`."""
        log.warning(
            "sandbox_is_not_isolated",
            backend=self.name,
            advice="for development only: every run can read what the runner can",
        )

    @asynccontextmanager
    async def start(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """See `SandboxBackend.start`."""
        with socket.create_server(("127.0.0.1", 0), backlog=64) as door:
            door.setblocking(False)  # noqa: FBT003
            inside = Inside(
                home=spec.directory / "home",
                workspace=spec.directory / "workspace",
                tmp=spec.directory / "tmp",
                door_url=f"http://127.0.0.1:{door.getsockname()[1]}",
            )
            programs = (path if path.is_dir() else path.parent for path in spec.path)
            launch = Launch(
                argv=_argv(spec),
                cwd=inside.workspace,
                env={
                    "PATH": os.pathsep.join(str(p) for p in (*programs, *_SYSTEM_PATH)),
                    **spec.environment(inside),
                },
                grace_s=spec.grace_s,
                steps={
                    "rlimits": {
                        "RLIMIT_CORE": 0,
                        "RLIMIT_NOFILE": spec.limits.open_files,
                        "RLIMIT_FSIZE": spec.limits.disk_bytes,
                    }
                },
            )
            try:
                async with AsyncExitStack() as stack:
                    try:
                        process, _ = await stack.enter_async_context(launched(launch))
                    except SandboxUnavailable as exc:
                        raise OpenCodeUnavailable from exc
                    yield Sandbox(process=process, door=door, inside=inside)
            finally:
                await finish(self.sweep(spec.directory))

    async def sweep(self, directory: Path) -> None:
        """See `SandboxBackend.sweep`: ends what left its process group (setsid, double fork).

        Such a process is known by its HOME, which no other run shares; one that cleared its
        environment gets away, as this backend's name promises nothing.
        """
        mark = f"HOME={directory}/home".encode()
        for _ in range(_SWEEPS):  # a process may fork between the look and the signal
            strays = await in_thread(_processes_with, mark)
            if not strays:
                return
            for pid in strays:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(_SWEEP_PAUSE_S)


def _argv(spec: SandboxSpec) -> list[str]:
    """Return the command with an absolute path; links stay, a virtual environment needs them."""
    program = Path(spec.command[0]).absolute()
    if not program.is_file():
        raise OpenCodeUnavailable
    return [str(program), *spec.command[1:]]


def _processes_with(variable: bytes) -> list[int]:
    """Return the processes that have *variable* (`NAME=value`) in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if variable in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


_: type[SandboxBackend] = ProcessBackend
