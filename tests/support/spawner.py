"""The real `python -m runner.spawner`, where a Docker engine is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from runner.spawner.profile import LABEL_RUNS, scope_of
from tests.support.ordinary_user import REPOSITORY
from tests.support.processes import descendants

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = os.environ.get("SPAWNER_IMAGE", "opencode-multiuser/sandbox:dev")
"""Built from the Dockerfile's target `sandbox`."""

_START_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class RunningSpawner:
    """A spawner that is up."""

    socket: Path
    runs: Path
    process: subprocess.Popen[bytes]

    def containers(self) -> list[str]:
        """Return the containers there are of runs below `runs`, running or not."""
        return containers_of(self.runs)

    def processes(self) -> list[int]:
        """Return the processes in its containers."""
        argv = ["docker", "inspect", "--format", "{{.State.Pid}}", *self.containers()]
        told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
        first = [int(pid) for pid in told.stdout.split()]
        return [*first, *(pid for one in first for pid in descendants(one))]


def containers_of(runs: Path) -> list[str]:
    """Return the containers there are of runs in *runs*."""
    label = f"label={LABEL_RUNS}={scope_of(runs)}"
    argv = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", label]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    return listed.stdout.split()


@cache
def why_no_engine() -> str:
    """Return why there can be no containers here; nothing where there can.

    `make test-docker` sets `DOCKER_HOST`; who hasn't is not asked to lend an engine to tests.
    """
    if not os.environ.get("DOCKER_HOST"):
        return os.environ.get("NO_ENGINE", "DOCKER_HOST names no Docker engine (make test-docker)")
    try:
        docker = subprocess.run(
            ["docker", "image", "inspect", IMAGE], capture_output=True, check=False, timeout=30
        )
    except OSError as exc:
        return f"no docker command: {exc.strerror}"
    return "" if docker.returncode == 0 else docker.stderr.decode().strip()


@cache
def why_no_runtime(name: str) -> str:
    """Return why the engine can't use the OCI runtime *name*; nothing where it can."""
    argv = ["docker", "info", "--format", "{{json .Runtimes}}"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    return "" if not name or f'"{name}"' in told.stdout else f"the engine has no runtime {name}"


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as trying:
        try:
            trying.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def run_spawner(
    runs: Path, *, at: Path | None = None, runtime: str = ""
) -> Iterator[RunningSpawner]:
    """Start a spawner for the run directories in *runs*; skip the test where none can be.

    *at* is its socket; left out: a new one.
    """
    if reason := why_no_engine() or why_no_runtime(runtime):
        import pytest  # noqa: PLC0415 - not in the runner's container, where attacks run too

        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="opencode-spawner-") as directory:
        Path(directory).chmod(0o711)
        path = at or Path(directory, "socket")
        usual = {
            "SPAWNER_SOCKET": str(path),
            "SPAWNER_RUNS_DIR": str(runs),
            "SPAWNER_IMAGE": IMAGE,
            "SPAWNER_RUNTIME": runtime,
            "DOCKER_HOST": os.environ["DOCKER_HOST"],
            "PATH": os.environ["PATH"],
        }
        argv = [sys.executable, "-m", "runner.spawner"]
        with subprocess.Popen(argv, cwd=REPOSITORY, env=usual) as process:
            try:
                deadline = time.monotonic() + _START_TIMEOUT_S
                while not _listens(path):
                    assert process.poll() is None, "the spawner did not start"
                    assert time.monotonic() < deadline, "the spawner does not listen"
                    time.sleep(0.02)
                yield RunningSpawner(socket=path, runs=runs, process=process)
            finally:
                process.terminate()
                process.wait(30)
