"""Last steps before a sandbox, in the process that becomes it: `python -I -S launch.py FD`.

Standard library only, one thread (the kernel lets no other make a user namespace). FD holds a
JSON object, so that nothing of it shows in a process list; every step is left out with its key:

    cgroups    directories to enter, before anything is started that could escape them
    port       make a network namespace, listen in it on 127.0.0.1:port
    namespaces how many user namespaces the program may make; only where a namespace was made
               that the limit can belong to, so not as root
    control    unix socket that the listening socket goes out by; on failure, the reason
    stage      [source, name] pairs: bind mounts below a fresh `stage_at`, which an unprivileged
               user can reach though the sources may be out of its reach
    uid        become this user and group, with nothing left of root
    rlimits    {name: value}
    parent     die with this process
    argv       the program to become
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_NEWNS, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_BACKLOG = 64
_OOM_SCORE = "500"  # when the host itself runs out of memory, sandboxes go first
_MAX_SPEC_BYTES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Do the steps, then become `argv`."""
    fd = int(sys.argv[1])
    spec: dict[str, Any] = json.loads(os.pread(fd, _MAX_SPEC_BYTES, 0))
    os.close(fd)
    control = socket.socket(fileno=spec["control"]) if "control" in spec else None
    if control is not None:
        control.set_inheritable(False)
    try:
        _prepare(spec, control)
        os.execv(spec["argv"][0], spec["argv"])  # noqa: S606
    except OSError as exc:
        reason = f"{exc.filename or spec.get('step', 'exec')}: {exc.strerror}"
        if control is None:
            sys.exit(reason)
        control.send(reason.encode())
        sys.exit(1)


def _prepare(spec: dict[str, Any], control: socket.socket | None) -> None:
    os.umask(0o022)
    for directory in spec.get("cgroups", ()):
        # 0 is this process itself.
        Path(directory, "cgroup.procs").write_text("0", encoding="ascii")
    with suppress(OSError):  # read-only in some containers
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    if "port" in spec and control is not None:
        _unshare_network(spec)
        with _listen(spec["port"]) as door:
            socket.send_fds(control, [b"+"], [door.fileno()])
    if "stage" in spec:
        spec["step"] = "stage"
        _stage(spec["stage"], spec["stage_at"])
    for name, value in spec.get("rlimits", {}).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if "uid" in spec:
        _become(spec)
    os.umask(0o077)
    if "parent" in spec:
        # After setresuid, which resets it.
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        if os.getppid() != spec["parent"]:
            sys.exit("the runner is gone")


def _become(spec: dict[str, Any]) -> None:
    spec["step"] = "setuid"
    os.setgroups([])
    os.setresgid(spec["uid"], spec["uid"], spec["uid"])
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])


def _unshare_network(spec: dict[str, Any]) -> None:
    """Enter a network namespace whose owner is outside: the sandbox can never configure it."""
    if os.geteuid() == 0:
        spec["step"] = "network namespace"
        _check(_libc.unshare(_NEWNET), spec["step"])
        return
    spec["step"] = "user namespace"
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEWUSER | _NEWNET), spec["step"])
    for name, value in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path("/proc/self", name).write_text(value, encoding="ascii")
    if "namespaces" in spec:
        _as_child(lambda: _limit_user_namespaces(spec["namespaces"]))


def _limit_user_namespaces(most: int) -> None:
    """Write the limit of this user namespace, in a /proc of our own: ours may be read-only."""
    _check(_libc.unshare(_NEWNS | _NEWPID), "unshare")
    _as_child(lambda: _write_limit(most))  # the first process of the new namespace


def _write_limit(most: int) -> None:
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    Path("/proc/sys/user/max_user_namespaces").write_text(str(most), encoding="ascii")


def _as_child(work: Callable[[], None]) -> None:
    """Let a process of its own do *work*, and fail as it failed."""
    child = os.fork()
    if not child:
        try:
            work()
        except OSError as exc:
            os._exit(exc.errno or errno.EIO)
        os._exit(0)
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        error = status if status > 0 else errno.EIO
        raise OSError(error, os.strerror(error), "/proc")


def _listen(port: int) -> socket.socket:
    door = socket.socket()
    request = struct.pack("16sH14s", b"lo", 0, b"")
    flags = struct.unpack("16sH14s", fcntl.ioctl(door, _SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(door, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | _IFF_UP, b""))
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    door.listen(_BACKLOG)
    return door


def _stage(entries: list[list[str]], at: str) -> None:
    """Show *entries* below *at*, in a mount namespace that ends with this process."""
    _check(_libc.unshare(_NEWNS), "mount namespace")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Opened first: *at* may hide some of the sources.
    sources = [(os.open(source, os.O_PATH), name) for source, name in entries]
    _mount("tmpfs", at, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=0755")
    for fd, name in sources:
        itself = f"/proc/self/fd/{fd}"
        target = Path(at, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(itself).is_dir():
            target.mkdir()
        else:
            target.touch()
        _mount(itself, str(target), None, _MS_BIND | _MS_REC)
        os.close(fd)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, "mount")


def _check(result: int, what: str) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)


if __name__ == "__main__":
    main()
