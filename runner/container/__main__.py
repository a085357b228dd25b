"""First process of a sandbox's container: `python -m runner.container PATH=DEVICE:INODE …`.

Standard library only; the image holds a copy of this package and of `runner.sandbox.processes`.
It speaks with the runner by the unix socket in `/run/runner`, a JSON object a line:

1.  It makes sure that each PATH is what the spawner meant, and listens on 127.0.0.1: the door.
2.  It sends the listening socket to the runner, which serves it from then on. Where a sandbox's
    kernel lets no descriptor out (gVisor), it relays instead.
3.  It starts the command that the runner names, and tells what only somebody inside can see, and
    how the command ended.

The tenant's processes run as the same user, and can do nothing to it: the kernel keeps signals
from the first process of a PID namespace, and looks into it from a process that can't be dumped.
When the runner goes away it ends, and with it everything in the container.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.container.child import leave_pipes, reaped, start
from runner.container.watch import Watch

_RUNNER = "/run/runner/socket"
_WORKSPACE = Path("/workspace")
_PORT = 4141  # not 4096, where OpenCode's own server listens
_BACKLOG = 64
_PR_SET_DUMPABLE = 4
_LOOK_INTERVAL_S = 0.25
_ORDER_BYTES = 1 << 20
_PIECE_BYTES = 64 << 10


def main() -> None:
    """Do what the module tells."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as runner:
        runner.connect(_RUNNER)
        try:
            _check_identities(sys.argv[1:])
            _serve(runner, _offer_door(runner))
        except (OSError, ValueError, KeyError) as exc:
            _tell(runner, failed=f"{type(exc).__name__}: {exc}")


def _check_identities(expected: list[str]) -> None:
    for entry in expected:
        path, _, identity = entry.partition("=")
        info = Path(path).stat()
        if f"{info.st_dev}:{info.st_ino}" != identity:
            raise ValueError(f"{path} is not the directory that was meant")


def _offer_door(runner: socket.socket) -> dict[str, Any]:
    """Send the door to the runner; return its order."""
    with socket.create_server(("127.0.0.1", _PORT), backlog=_BACKLOG) as door:
        try:
            socket.send_fds(runner, [b"+"], [door.fileno()])
        except OSError:
            runner.send(b"-")
        order: dict[str, Any] = json.loads(_line(runner))
        if order["relay"] and os.fork() == 0:
            from runner.container.relay import relay  # noqa: PLC0415 - costs memory

            relay(door, _RUNNER)
    return order


def _serve(runner: socket.socket, order: dict[str, Any]) -> None:
    """Start what *order* says; return when it has ended, or the runner is gone."""
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = start(order["command"], order["environment"], _WORKSPACE)
    if child is None:
        _tell(runner, missing=True)
        return
    leave_pipes()
    _tell(runner, started=True)
    watch = Watch(_WORKSPACE, processes=order["processes"])
    while True:
        readable, _, _ = select.select([runner.fileno(), woken], [], [], _LOOK_INTERVAL_S)
        if runner.fileno() in readable and not runner.recv(1):
            return
        if woken in readable:
            os.read(woken, _PIECE_BYTES)
            if (status := reaped(child)) is not None:
                _tell(runner, ended=os.waitstatus_to_exitcode(status))
                return
        if news := watch.look():
            _tell(runner, **news)


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(_PIECE_BYTES)
        if not piece or len(line) > _ORDER_BYTES:
            raise ValueError("the runner gave no order")
        line += piece
    return line


def _tell(runner: socket.socket, **report: object) -> None:
    with suppress(OSError):  # the runner is gone: so are we, soon
        runner.sendall(json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    main()
