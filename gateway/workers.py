"""Several processes that do the same work: started, replaced when they die, ended together."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from runner.plumbing.process import end_with_parent
from runner.plumbing.settings import EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_AWAITED = _STOP | {signal.SIGCHLD}
_GRACE_S = 8.0
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
_LIVED_S = 10.0  # who lived so long is replaced at once
_FOREVER_S = 3600.0


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Hold an address for workers that listen on it together; yields the port, 0 being any.

    Raises:
        OSError: It can't be had, or somebody else has it.
    """
    kind = socket.SOCK_STREAM
    family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, kind) as probe:
        # Not to be shared: else the workers of another gateway would not be noticed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    with socket.socket(family, kind) as holder:  # never listens
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
        yield int(holder.getsockname()[1])


class Workers:
    """Processes that each do *work* until a signal says to end, given their number from 0.

    They are forks of this one, which does nothing else: without threads and without an event loop
    it can fork at any time. So they have what it has read, secrets included, and share its memory.
    """

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._work = work
        self._due = dict.fromkeys(range(count), 0.0)
        self._delays = dict.fromkeys(range(count), _FIRST_DELAY_S)
        self._running: dict[int, tuple[int, float]] = {}  # by process: number, when it was started

    def run(self) -> int:
        """Keep all at work until SIGTERM, SIGINT or SIGHUP; return the exit status.

        In the workers this does not return.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        status = 0
        while status == 0:
            self._start_those_due()
            received = signal.sigtimedwait(_AWAITED, self._until_next_s())
            if received is not None and received.si_signo in _STOP:
                break
            status = self._collect()
        self._end()
        return status

    def _start_those_due(self) -> None:
        for number in [number for number, at in self._due.items() if at <= time.monotonic()]:
            del self._due[number]
            self._start(number)

    def _start(self, number: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._running[pid] = number, time.monotonic()
            return
        end_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        if os.getppid() == parent:
            self._work(number)
        sys.exit()

    def _until_next_s(self) -> float:
        return max(0.0, min(self._due.values(), default=_FOREVER_S) - time.monotonic())

    def _collect(self) -> int:
        """Plan to replace those that have ended; return a status that ends all, or 0."""
        for pid, status in _ended():
            if pid not in self._running:  # as the first process of a container one is given others
                continue
            number, started = self._running.pop(pid)
            log.warning("worker_ended", worker=number, status=status)
            if status == EXIT_USAGE:  # it has said what to mend
                return status
            if time.monotonic() - started >= _LIVED_S:
                self._delays[number] = _FIRST_DELAY_S
            self._due[number] = time.monotonic() + self._delays[number]
            self._delays[number] = min(2 * self._delays[number], _LONGEST_DELAY_S)
        return 0

    def _end(self) -> None:
        """Ask, then insist."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while self._running and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
            for pid, _ in _ended():
                self._running.pop(pid, None)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._running:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _ended() -> Iterator[tuple[int, int]]:
    """Yield the children that have ended, and how: below 0 by a signal."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended[0], os.waitstatus_to_exitcode(ended[1])
