"""One cgroup per sandbox: version 2 where the runner may write one, version 1 likewise.

No systemd needed, no daemon. On hybrid hosts version 1 limits, and the (controller-less)
version 2 tree still kills a whole sandbox at once.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.problems import SandboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.sandbox.base import Limits

# Limit → controller, in the words of `SandboxBackend.enforced`.
CONTROLLERS = {"memory": "memory", "processes": "pids", "cpus": "cpu"}

_PERIOD_US = 100_000
_POLL_S = 0.005
_PATIENCE_S = 5.0
_LEAF = "opencode-runner"
# A file of each controller, to see that it is there and may be written.
_KNOBS_V2 = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
_KNOBS_V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hierarchy:
    """Where this process stands in the cgroup trees.

    Attributes:
        unified: Its directory in the version 2 tree, and the top of that tree.
        v1: Controller → its directory in that controller's tree.
    """

    unified: Path | None = None
    unified_top: Path | None = None
    v1: Mapping[str, Path] = field(default_factory=dict)


def read_hierarchy(process: Path = Path("/proc/self")) -> Hierarchy:
    """Return the trees this process is in; empty where there are none."""
    try:
        return parse_hierarchy(
            (process / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape"),
            (process / "cgroup").read_text(encoding="utf-8", errors="surrogateescape"),
        )
    except OSError:
        return Hierarchy()


def parse_hierarchy(mountinfo: str, membership: str) -> Hierarchy:
    """Return the trees that `/proc/PID/mountinfo` and `/proc/PID/cgroup` tell of."""
    paths: dict[str, str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    unified = top = None
    v1: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, mount_point = left.split(" ")[3:5]
        kind, _source, options = right.split(" ", 2)
        if kind == "cgroup2" and unified is None and "" in paths:
            top = Path(_unescape(mount_point))
            unified = _below(top, root, paths[""])
        elif kind == "cgroup":
            for name in set(options.split(",")) & paths.keys() & set(_KNOBS_V1):
                v1.setdefault(name, _below(Path(_unescape(mount_point)), root, paths[name]))
    return Hierarchy(unified=unified, unified_top=top, v1=v1)


def _below(mount_point: Path, root: str, path: str) -> Path:
    """Return where *path* is seen, when *root* of the tree is mounted at *mount_point*."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    elif root != "/":
        path = "/"  # a container's view: what is mounted is its own
    return mount_point / path.lstrip("/")


def _unescape(path: str) -> str:
    return path.replace("\\040", " ").replace("\\134", "\\")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """What happened in a cgroup since it was made."""

    oom_kills: int = 0
    refused_forks: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cgroup:
    """One sandbox's directories, at least one."""

    directories: Sequence[Path]
    memory: Path | None
    pids: Path | None

    def counters(self) -> Counters:
        """Return what happened so far; zeros for what isn't counted."""
        oom = 0
        if self.memory is not None:
            for name in ("memory.events", "memory.oom_control"):
                oom = max(oom, _fields(self.memory / name).get("oom_kill", 0))
        forks = _fields(self.pids / "pids.events").get("max", 0) if self.pids else 0
        return Counters(oom_kills=oom, refused_forks=forks)

    def kill(self) -> None:
        """Kill every process in it, and wait (a few seconds at most) until they are gone."""
        with suppress(OSError):
            (self.directories[0] / "cgroup.kill").write_text("1", encoding="ascii")
        deadline = time.monotonic() + _PATIENCE_S
        while (left := self._processes()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_S)

    def remove(self) -> None:
        """Remove its directories, which takes that nothing lives in it."""
        deadline = time.monotonic() + _PATIENCE_S
        for directory in self.directories:
            while not _removed(directory) and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def _processes(self) -> set[int]:
        found: set[int] = set()
        for directory in self.directories:
            with suppress(OSError):
                text = (directory / "cgroup.procs").read_text(encoding="ascii")
                # 0: a process that this PID namespace does not show.
                found |= {int(pid) for pid in text.split()} - {0}
        return found


class Cgroups:
    """The places where this process may make cgroups for sandboxes."""

    def __init__(self, v2: Path | None, v2_controllers: Sequence[str], v1: Mapping[str, Path]):
        self._v2 = v2
        self._v2_controllers = frozenset(v2_controllers)
        self._v1 = {k: v for k, v in v1.items() if k not in self._v2_controllers}

    @classmethod
    def detect(cls, hierarchy: Hierarchy) -> Cgroups:
        """Find by trying what may be written here; leaves nothing behind."""
        v2, controllers = _usable_v2(hierarchy)
        v1 = {
            name: directory
            for name, directory in hierarchy.v1.items()
            if _has_knobs(directory, [_KNOBS_V1[name]])
        }
        return cls(v2, controllers, v1)

    def enforcer(self, limit: str) -> str | None:
        """Return `cgroup-v2` or `cgroup-v1` when one holds *limit*, else None."""
        controller = CONTROLLERS.get(limit, "")
        if controller in self._v2_controllers:
            return "cgroup-v2"
        return "cgroup-v1" if controller in self._v1 else None

    def create(self, name: str, limits: Limits) -> Cgroup | None:
        """Make the cgroup *name* with *limits*; None where this host lets us make none.

        Raises:
            SandboxUnavailable: One that could be made a moment ago can't be any more.
        """
        made = self._named(name)
        if (left := self.find(name)) is not None:
            left.kill()  # of a killed runner: its counters would be ours
            left.remove()
        try:
            for directory in made.directories:
                directory.mkdir()
            self._limit(made, limits)
        except OSError as exc:
            made.remove()
            raise SandboxUnavailable(reason=f"cgroup {exc.filename}: {exc.strerror}") from exc
        return made if made.directories else None

    def find(self, name: str) -> Cgroup | None:
        """Return the cgroup *name*, if any of its directories is there."""
        named = self._named(name)
        return named if any(directory.exists() for directory in named.directories) else None

    def _named(self, name: str) -> Cgroup:
        v2 = self._v2 / name if self._v2 else None
        v1 = {controller: directory / name for controller, directory in self._v1.items()}
        places = v1 | dict.fromkeys(self._v2_controllers, v2)
        # Version 2 first: there a kill is one atomic step.
        directories = dict.fromkeys([*([v2] if v2 else []), *v1.values()])
        return Cgroup(
            directories=tuple(directories), memory=places.get("memory"), pids=places.get("pids")
        )

    def _limit(self, cgroup: Cgroup, limits: Limits) -> None:
        quota = int(limits.cpus * _PERIOD_US)
        for directory in cgroup.directories:
            for knob, value in (
                ("memory.limit_in_bytes", limits.memory_bytes),
                ("memory.memsw.limit_in_bytes", limits.memory_bytes),
                ("memory.max", limits.memory_bytes),
                ("memory.swap.max", 0),
                ("memory.oom.group", 1),
                ("pids.max", limits.processes),
                ("cpu.cfs_period_us", _PERIOD_US),
                ("cpu.cfs_quota_us", quota),
                ("cpu.max", f"{quota} {_PERIOD_US}"),
            ):
                if (directory / knob).exists():
                    (directory / knob).write_text(str(value), encoding="ascii")


def _usable_v2(hierarchy: Hierarchy) -> tuple[Path | None, list[str]]:
    """Return where version 2 cgroups can be made, and the controllers they get."""
    own, top = hierarchy.unified, hierarchy.unified_top
    if own is None or top is None:
        return None, []
    if own.name == _LEAF:
        own = own.parent  # an earlier runner stepped aside already
    # Only the real top has no type. There alone, a cgroup may have both processes and
    # children with controllers; elsewhere the runner first steps aside, into a leaf.
    candidates = [top, own] if not (top / "cgroup.type").exists() else [own]
    for parent in candidates:
        wanted = _words(parent / "cgroup.controllers") & set(_KNOBS_V2)
        if wanted and not wanted <= _words(parent / "cgroup.subtree_control"):
            if parent != top or (top / "cgroup.type").exists():
                _step_aside(parent)
            for controller in wanted:
                with suppress(OSError):
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        enabled = sorted(wanted & _words(parent / "cgroup.subtree_control"))
        if _has_knobs(parent, ["cgroup.procs", *(_KNOBS_V2[name] for name in enabled)]):
            return parent, enabled
    return None, []


def _step_aside(parent: Path) -> None:
    """Move every process of *parent* into a leaf, which delegation to us allows."""
    with suppress(OSError):
        leaf = parent / _LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (parent / "cgroup.procs").read_text(encoding="ascii").split():
            (leaf / "cgroup.procs").write_text(pid, encoding="ascii")


def _has_knobs(parent: Path, knobs: Sequence[str]) -> bool:
    """Whether a cgroup below *parent* can be made, has *knobs*, and can be entered by us."""
    probe = parent / f"opencode-probe-{secrets.token_hex(4)}"
    # To move a process takes the right to write the common ancestor's list.
    if not os.access(parent / "cgroup.procs", os.W_OK):
        return False
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        return all(os.access(probe / knob, os.W_OK) for knob in knobs)
    finally:
        _removed(probe)


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="ascii").split())
    except OSError:
        return set()


def _fields(path: Path) -> dict[str, int]:
    """Return a file of `name number` lines; empty when it can't be read."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = [line.split() for line in lines]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}  # noqa: PLR2004
