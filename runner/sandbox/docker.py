"""Backend `docker`: a container for every run, started by the spawner.

The runner never holds Docker's socket. It asks the spawner for a container, gets the container's
attached stream, and tells the container's first process what to run by a socket that only the
two share.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.problems import OpenCodeUnavailable, SandboxUnavailable
from runner.plumbing.cleanup import finish
from runner.sandbox.base import Inside, Limits, Sandbox, SandboxBackend, SandboxSpec, Verdict
from runner.sandbox.bwrap import PATH, in_system
from runner.sandbox.cgroups import Counters
from runner.sandbox.docker_control import Control, Order, controlled, listening
from runner.sandbox.docker_stream import Stdin, attached
from runner.sandbox.removal import remove_tree
from runner.sandbox.tenancy import Tenants
from runner.sandbox.threads import in_thread
from runner.sandbox.trees import give
from runner.sandbox.watch import Watch
from runner.spawner.client import Container, Spawner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

_INSIDE = Inside(
    home=Path("/home/user"),
    workspace=Path("/workspace"),
    tmp=Path("/tmp"),  # noqa: S108 - the container's own
    door_url="http://127.0.0.1:4141",
)
_PROGRAMS = Path("/opt/bin")
_DOOR = "door"
_WRITABLE = ("home", "workspace")
_TRIAL = Limits(memory_bytes=64 << 20, processes=16, cpus=1.0, disk_bytes=1 << 20, open_files=64)
_LATE_WORD_S = 1.0


@dataclass(frozen=True, slots=True)
class _Process:
    """The command in the container, as asyncio would tell of a process of one's own."""

    stdin: Stdin
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    control: Control

    @property
    def returncode(self) -> int | None:
        return self.control.returncode

    async def wait(self) -> int:
        return await self.control.wait()


class DockerBackend:
    """Start commands in containers that see an image read-only, their directory, and one door.

    Args:
        spawner: Unix socket that the spawner listens on.
        runs: Directory that all run directories are in, the spawner's `SPAWNER_RUNS_DIR`.
        patience_s: How long to wait for a spawner that does not listen.
    """

    name = "docker"
    door_is_identity = True

    def __init__(self, spawner: Path, runs: Path, *, patience_s: float = 10.0) -> None:
        self.spawner = spawner
        self._spawner = Spawner(spawner, patience_s=patience_s)
        self._runs = runs
        self._tenants = Tenants()

    def enforced(self, limits: Limits) -> Mapping[str, str]:
        """See `SandboxBackend.enforced`."""
        del limits
        return {
            **dict.fromkeys(("memory", "processes", "cpus"), "container"),
            "disk": "watch",
            **dict.fromkeys(("open_files", "file_size"), "rlimit"),
        }

    async def check(self) -> None:
        """See `SandboxBackend.check`: starts a container that does nothing."""
        await asyncio.to_thread(self._runs.mkdir, parents=True, exist_ok=True)
        directory = Path(
            await asyncio.to_thread(tempfile.mkdtemp, prefix="opencode-check-", dir=self._runs)
        )
        spec = SandboxSpec(
            command=("/usr/bin/true",),
            directory=directory,
            environment=lambda _: {},
            limits=_TRIAL,
        )
        try:
            async with self.start(spec) as sandbox:
                status = await sandbox.process.wait()
        except OpenCodeUnavailable as exc:
            raise SandboxUnavailable(reason="not even a trial program can be started") from exc
        finally:
            await finish(remove_tree(directory))
        if status:
            raise SandboxUnavailable(reason=f"a trial program ended with status {status}")

    @asynccontextmanager
    async def start(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """See `SandboxBackend.start`."""
        if spec.directory.parent != self._runs:
            raise SandboxUnavailable(reason=f"run directories have to be in {self._runs}")
        async with AsyncExitStack() as stack:
            tenant = self._tenants.take()
            stack.callback(self._tenants.free, tenant)
            await in_thread(_furnish, spec.directory, tenant)
            offered = stack.enter_context(listening(spec.directory / _DOOR, owner=tenant))
            container = await stack.enter_async_context(
                self._spawner.container(spec.directory.name, spec.limits)
            )
            streams = await stack.enter_async_context(attached(container.attached_fd))
            control = await stack.enter_async_context(
                controlled(offered, spec.directory / _DOOR, _order(spec), container.ended)
            )
            process = _Process(streams.stdin, streams.stdout, streams.stderr, control)
            stack.push_async_callback(_asked_to_end, process, spec.grace_s)
            watch = _watch(spec, container, control)
            await stack.enter_async_context(watch.watching())
            yield Sandbox(
                process=process,
                door=control.door,
                inside=_INSIDE,
                verdict=lambda: _verdict(watch, container, control),
            )

    async def sweep(self, directory: Path) -> None:
        """See `SandboxBackend.sweep`."""
        await self._spawner.stop(directory.name)


def _furnish(directory: Path, tenant: int | None) -> None:
    """Make what the container sees of *directory*, for *tenant*; blocks."""
    for name in (*_WRITABLE, _DOOR):
        (directory / name).mkdir(exist_ok=True, mode=0o700)
        if tenant is not None:
            give(directory / name, uid=tenant, gid=tenant, stop=threading.Event())


def _order(spec: SandboxSpec) -> Order:
    command = Path(spec.command[0])
    program = command if in_system(command) else _PROGRAMS / command.name
    return Order(
        command=[str(program), *spec.command[1:]],
        environment={"PATH": PATH, **spec.environment(_INSIDE)},
        processes=spec.limits.processes,
    )


def _watch(spec: SandboxSpec, container: Container, control: Control) -> Watch:
    def counters() -> Counters:
        return Counters(
            oom_kills=int(container.ran_out_of_memory.is_set()),
            refused_forks=int(control.is_crowded),
        )

    def deleted_bytes() -> int:
        if control.hides:
            raise PermissionError
        return control.deleted_bytes

    return Watch(
        directory=spec.directory,
        limits=spec.limits,
        counters=counters,
        deleted_bytes=deleted_bytes,
        kill=control.dismiss,
    )


async def _verdict(watch: Watch, container: Container, control: Control) -> Verdict | None:
    """Return the limit; what the engine has to tell of memory comes a moment after the end."""
    if (verdict := await watch.verdict()) is None and control.was_killed:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LATE_WORD_S):
                await container.ran_out_of_memory.wait()
        verdict = await watch.verdict()
    return verdict


async def _asked_to_end(process: _Process, grace_s: float) -> None:
    """Ask the command to end by the end of its input, and wait for that, bounded."""
    if process.returncode is None:
        process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await process.wait()


_: type[SandboxBackend] = DockerBackend
