"""Running a command as somebody unprivileged, when the tests themselves run as root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import runner.sandbox.launch
from runner.sandbox.launcher import memory_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UID = 54_321
_SUITE_TIMEOUT_S = 170
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Command:
    """What to hand to `subprocess`: arguments, and descriptors to pass on."""

    argv: list[str]
    fds: tuple[int, ...] = ()


@contextmanager
def as_ordinary_user(argv: Sequence[str]) -> Iterator[Command]:
    """Yield *argv* as a command of user `UID`; unchanged where the tests aren't root.

    The interpreter and the checkout may be out of that user's reach, below root's home say;
    then they are shown to it at the same paths, in a mount namespace of its own.
    """
    if os.geteuid() != 0:
        yield Command(list(argv))
        return
    steps = {"uid": UID, "argv": list(argv), **_staging()}
    with memory_file(json.dumps(steps).encode()) as fd:
        launch = runner.sandbox.launch.__file__
        yield Command([sys.executable, "-I", "-S", launch, str(fd)], (fd,))


def pytest_as_ordinary_user(file: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in *file* with pytest's *options* as user `UID`; return how that ended."""
    with tempfile.TemporaryDirectory() as base:
        os.chown(base, UID, UID)
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        argv += [f"--basetemp={base}/pytest", str(Path(file).relative_to(REPOSITORY)), *options]
        with as_ordinary_user(argv) as command:
            return subprocess.run(
                command.argv,
                pass_fds=command.fds,
                cwd=REPOSITORY,
                env={"PATH": os.environ["PATH"], "HOME": base, "TMPDIR": base},
                capture_output=True,
                text=True,
                check=False,
                timeout=_SUITE_TIMEOUT_S,
            )


def _staging() -> dict[str, object]:
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), REPOSITORY}
    needed.add((REPOSITORY / ".venv").resolve())
    closed = {top: path for path in sorted(needed) if (top := _closed_above(path)) is not None}
    if not closed:
        return {}
    (top,) = closed
    below = [path for path in sorted(needed) if path.is_relative_to(top)]
    outermost = [p for p in below if not any(p != q and p.is_relative_to(q) for q in below)]
    entries = [[str(path), str(path.relative_to(top))] for path in outermost]
    return {"stage": entries, "stage_at": str(top)}


def _closed_above(path: Path) -> Path | None:
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & 0o001:
            return parent
    return None
