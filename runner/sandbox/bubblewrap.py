"""Backend `bubblewrap`: namespaces of its own for every run, made by `bwrap`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from runner.contract.problems import OpenCodeUnavailable, SandboxUnavailable
from runner.plumbing.cleanup import finish
from runner.sandbox import bwrap, mark, processes
from runner.sandbox.base import Inside, Limits, Sandbox, SandboxBackend, SandboxSpec
from runner.sandbox.cgroups import Cgroups, Counters, read_hierarchy
from runner.sandbox.diagnosis import explain
from runner.sandbox.launcher import Launch, launched, memory_file, outlived
from runner.sandbox.removal import remove_tree
from runner.sandbox.seccomp import UnsupportedArchitecture, build_filter
from runner.sandbox.spawn import close_stdin, signal_group
from runner.sandbox.tenancy import Tenants, find_programs, require_usable
from runner.sandbox.threads import in_thread
from runner.sandbox.trees import give
from runner.sandbox.watch import Watch

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping

    from runner.sandbox.cgroups import Cgroup

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_DOOR_PORT = 4141  # not 4096, where OpenCode's own server listens
_TRIAL_TIMEOUT_S = 30.0
_TRIAL = Limits(memory_bytes=64 << 20, processes=16, cpus=1.0, disk_bytes=1 << 20, open_files=64)
_WORDS_BYTES = 4096
_MIN_DATA_BYTES = 4 << 30  # OpenCode does not start with much less
_SYSCTL = Path("/proc/sys")  # read-only in containers
_WRITABLE = ("home", "workspace", "tmp", "shm")
# Since then, RLIMIT_NPROC counts within a user namespace, not the user's other processes.
_COUNTS_BY_NAMESPACE = (5, 14)
_INSIDE = Inside(
    home=Path("/home/user"),
    workspace=Path("/workspace"),
    tmp=Path("/tmp"),  # noqa: S108 - the sandbox's own
    door_url=f"http://127.0.0.1:{_DOOR_PORT}",
)


class BubblewrapBackend:
    """Start commands that see the system read-only, their own directory, and one door."""

    name = "bubblewrap"
    door_is_identity = True

    def __init__(self) -> None:
        self._cgroups = Cgroups.detect(read_hierarchy())
        self._tenants = Tenants()

    def enforced(self, limits: Limits) -> Mapping[str, str]:
        """See `SandboxBackend.enforced`."""
        del limits
        processes = "rlimit" if _can_limit_processes() else "watch"
        return {
            "memory": self._cgroups.enforcer("memory") or "watch",
            "processes": self._cgroups.enforcer("processes") or processes,
            "cpus": self._cgroups.enforcer("cpus") or "nothing",
            "disk": "watch",
            "open_files": "rlimit",
            "file_size": "rlimit",
        }

    async def check(self) -> None:
        """See `SandboxBackend.check`: starts a sandbox that does nothing."""
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="opencode-check-"))
        try:
            await self._try(directory)
        except OpenCodeUnavailable as exc:
            raise SandboxUnavailable(reason="not even a trial program can be started") from exc
        finally:
            await finish(remove_tree(directory))

    async def _try(self, directory: Path) -> None:
        spec = SandboxSpec(
            command=(shutil.which("true") or "/usr/bin/true",),
            directory=directory,
            environment=lambda _: {},
            limits=_TRIAL,
        )
        async with self.start(spec) as sandbox:
            words = b""
            try:
                async with asyncio.timeout(_TRIAL_TIMEOUT_S):
                    if sandbox.process.stderr is not None:
                        words = await sandbox.process.stderr.read(_WORDS_BYTES)
                    status = await sandbox.process.wait()
            except TimeoutError as exc:
                raise SandboxUnavailable(reason="a trial sandbox did not end") from exc
            if status:
                raise _unavailable(words.decode(errors="replace"))

    @asynccontextmanager
    async def start(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """See `SandboxBackend.start`."""
        async with AsyncExitStack() as stack:
            tenant = self._tenants.take()
            stack.callback(self._tenants.free, tenant)
            cgroup = await stack.enter_async_context(self._cgroup(spec))
            program, plan = await in_thread(self._prepare, spec, tenant)
            end = partial(_end, spec.directory, cgroup)
            alive_fd = await stack.enter_async_context(outlived(end))
            launch = self._launch(stack, spec, (program, plan), (tenant, cgroup, alive_fd))
            try:
                process, door = await stack.enter_async_context(launched(launch))
            except SandboxUnavailable as exc:
                raise _unavailable(str(exc.params.get("reason", ""))) from exc
            if door is None:
                raise SandboxUnavailable(reason="no door came out of the sandbox")
            await in_thread(mark.write, spec.directory, cgroup, process.pid)
            watch = self._watch(spec, cgroup, process)
            await stack.enter_async_context(watch.watching())
            yield Sandbox(process=process, door=door, inside=_INSIDE, verdict=watch.verdict)

    async def sweep(self, directory: Path) -> None:
        """See `SandboxBackend.sweep`."""
        await in_thread(self._sweep, directory)

    def _sweep(self, directory: Path) -> None:
        mark.sweep(directory, _INSIDE.workspace)
        # The runner may have been killed before it could leave a mark of the cgroup it had made.
        if (cgroup := self._cgroups.find(mark.cgroup_name(directory))) is not None:
            cgroup.kill()
            cgroup.remove()

    @asynccontextmanager
    async def _cgroup(self, spec: SandboxSpec) -> AsyncIterator[Cgroup | None]:
        """Yield a cgroup for *spec*; on exit nothing lives in it any more, and it is gone."""
        made: list[Cgroup] = []

        def make() -> None:
            cgroup = self._cgroups.create(mark.cgroup_name(spec.directory), spec.limits)
            made.extend([cgroup] if cgroup is not None else [])
            mark.write(spec.directory, cgroup)

        try:
            await in_thread(make)
            yield made[0] if made else None
        finally:
            for cgroup in made:
                await finish(_remove(cgroup))

    def _prepare(self, spec: SandboxSpec, tenant: int | None) -> tuple[Path, bwrap.Plan]:
        """Make the directories ready, find the programs; blocks."""
        command = Path(spec.command[0]).resolve()
        if not command.is_file():
            raise OpenCodeUnavailable
        if tenant is not None:
            require_usable(command)
        for name in _WRITABLE:
            (spec.directory / name).mkdir(exist_ok=True, mode=0o700)
            if tenant is not None:
                give(spec.directory / name, uid=tenant, gid=tenant, stop=threading.Event())
        # In memory where a cgroup counts it; else on disk, where the watch does.
        on_disk = not self._cgroups.enforcer("memory")
        plan = bwrap.Plan(
            command=command,
            programs=find_programs(spec.path),
            home=spec.directory / "home",
            workspace=spec.directory / "workspace",
            tmp=spec.directory / "tmp" if on_disk else None,
            shm=spec.directory / "shm" if on_disk else None,
            tmp_bytes=min(spec.limits.disk_bytes, spec.limits.memory_bytes // 4),
            inside_paths=_INSIDE,
            # As root there would be no namespace that a limit could belong to.
            limits_namespaces=tenant is not None or not _is_read_only(_SYSCTL),
        )
        return bwrap.find(), plan

    def _launch(
        self,
        stack: AsyncExitStack,
        spec: SandboxSpec,
        shown: tuple[Path, bwrap.Plan],
        place: tuple[int | None, Cgroup | None, int],
    ) -> Launch:
        """Return what starts bwrap; *stack* holds the descriptors it needs meanwhile."""
        program, plan = shown
        tenant, cgroup, alive_fd = place
        steps = {
            "cgroups": [str(path) for path in cgroup.directories] if cgroup else [],
            "port": _DOOR_PORT,
            "rlimits": self._rlimits(spec.limits),
        }
        if not plan.limits_namespaces:
            steps["namespaces"] = bwrap.USER_NAMESPACES
        command = [plan.inside(plan.command), *spec.command[1:]]
        if tenant is not None:
            stage = bwrap.Stage(program, plan)
            program, plan = stage.program, stage.plan
            steps |= {"uid": tenant, "stage": stage.entries, "stage_at": bwrap.STAGE_AT}
        etc = {
            path: stack.enter_context(memory_file(text.encode()))
            for path, text in bwrap.ETC.items()
        }
        seccomp_fd = stack.enter_context(memory_file(_filter()))
        options = bwrap.options(plan, etc=etc, seccomp_fd=seccomp_fd, sync_fd=alive_fd)
        options_fd = stack.enter_context(memory_file(bwrap.joined(options)))
        return Launch(
            argv=[str(program), "--args", str(options_fd), "--", *command],
            cwd=Path("/"),
            env={"PATH": bwrap.PATH, **spec.environment(_INSIDE)},
            grace_s=spec.grace_s,
            steps=steps,
            fds=(*etc.values(), seccomp_fd, alive_fd, options_fd),
            ask=close_stdin,
        )

    def _rlimits(self, limits: Limits) -> dict[str, int]:
        rlimits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_FSIZE": limits.disk_bytes,
        }
        if not self._cgroups.enforcer("processes") and _can_limit_processes():
            rlimits["RLIMIT_NPROC"] = limits.processes
        if not self._cgroups.enforcer("memory"):
            rlimits["RLIMIT_DATA"] = max(2 * limits.memory_bytes, _MIN_DATA_BYTES)
        return rlimits

    def _watch(self, spec: SandboxSpec, cgroup: Cgroup | None, process: Process) -> Watch:
        return Watch(
            directory=spec.directory,
            limits=spec.limits,
            counters=cgroup.counters if cgroup is not None else Counters,
            deleted_bytes=lambda: _deleted_bytes(process.pid, spec.directory),
            pid=process.pid,
            watched=frozenset(
                limit for limit in ("memory", "processes") if not self._cgroups.enforcer(limit)
            ),
            kill=lambda: signal_group(process.pid, signal.SIGKILL),
        )


def _deleted_bytes(pid: int, directory: Path) -> int:
    pids = [member.pid for member in processes.descendants(pid)]
    return processes.deleted_bytes(pids, directory.stat().st_dev)


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _can_limit_processes() -> bool:
    if os.geteuid() == 0:
        return True  # each sandbox has a user of its own
    major, minor = os.uname().release.split(".")[:2]
    with suppress(ValueError):
        return (int(major), int(minor)) >= _COUNTS_BY_NAMESPACE
    return False


def _filter() -> bytes:
    try:
        return build_filter()
    except UnsupportedArchitecture as exc:
        raise SandboxUnavailable(reason=f"no system call filter for {exc}") from exc


def _unavailable(words: str) -> SandboxUnavailable:
    return SandboxUnavailable(reason=explain(words, root=os.geteuid() == 0))


def _end(directory: Path, cgroup: Cgroup | None) -> None:
    """End whatever is still alive, and wait until it is gone; blocks."""
    if cgroup is not None:
        cgroup.kill()
    else:
        mark.end_strays(directory, _INSIDE.workspace)


async def _remove(cgroup: Cgroup) -> None:
    await asyncio.to_thread(cgroup.kill)
    await asyncio.to_thread(cgroup.remove)


_: type[SandboxBackend] = BubblewrapBackend
