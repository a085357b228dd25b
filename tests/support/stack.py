"""The whole stack as `make run` starts it: a real process, its output, its descendants."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import descendants, mentioning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "stack")
_LAST_LINE = "Ctrl-C ends it."
_UP_WITHIN_S = 150.0
_GONE_WITHIN_S = 40.0


@dataclass
class StackProcess:
    """A started stack; its stdout and stderr grow in files."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    out: Path
    err: Path
    seen: set[int] = field(default_factory=set)

    @property
    def block(self) -> str:
        """What stands on stdout."""
        return self.out.read_text()

    @property
    def curl(self) -> list[str]:
        """The printed line, split as a shell would."""
        return shlex.split(next(li for li in self.block.splitlines() if li.startswith("curl ")))

    @property
    def origin(self) -> str:
        """The public origin, from the block."""
        return self.words(r"Debug page +(\S+)/debug\.html")[0]

    def words(self, pattern: str) -> tuple[str, ...]:
        """Return what the groups of *pattern* match in the block."""
        found = re.search(pattern, self.block)
        assert found, f"{pattern!r} is not in {self.block!r}"
        return found.groups()

    def wait_until_up(self) -> None:
        """Wait for the block's last line."""
        deadline = time.monotonic() + _UP_WITHIN_S
        while _LAST_LINE not in self.block:
            assert self.process.poll() is None, f"it ended: {self.err.read_text()}"
            assert time.monotonic() < deadline, f"not up: {self.err.read_text()}"
            time.sleep(0.05)
        self.look_around()

    def look_around(self) -> None:
        """Take note of the processes there are now."""
        self.seen.update(descendants(self.process.pid))

    def end(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send *sig* to this one process and wait for its end; return the exit status."""
        self.look_around()
        self.process.send_signal(sig)
        return self.process.wait(_GONE_WITHIN_S)

    def left_behind(self, *, within_s: float = _GONE_WITHIN_S) -> list[int]:
        """Return what is still alive of it, once nothing is or *within_s* is over."""
        deadline = time.monotonic() + within_s
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def alive(self) -> list[int]:
        """Return what is alive of it."""
        tree = [pid for pid in self.seen if _is_running(pid)]
        return sorted({*tree, *mentioning(str(self.data_dir))})


@contextmanager
def start_stack(
    data_dir: Path, *, command: Sequence[str] = COMMAND, **env: str
) -> Iterator[StackProcess]:
    """Start *command* with free ports and no warm pool; end whatever is left of it afterwards."""
    logs = data_dir.with_name(f"{data_dir.name}-{time.monotonic_ns()}")
    out, err = logs.with_suffix(".out"), logs.with_suffix(".err")
    usual = {"GATEWAY_PORT": "0", "POCKETBASE_PORT": "0", "PORT": "0", "RUNNER_WARM_POOL": "0"}
    usual |= {"GATEWAY_METRICS_PORT": "0", "RUNNER_METRICS_PORT": "0"}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_clean() | usual | {"DATA_DIR": str(data_dir)} | env,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    stack = StackProcess(process, data_dir, out, err)
    try:
        yield stack
    finally:
        with suppress(subprocess.TimeoutExpired):
            stack.end()
        for pid in {process.pid, *stack.left_behind(within_s=10)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(_GONE_WITHIN_S)


def _clean() -> dict[str, str]:
    """This environment without what would steer make or the stack."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _is_running(pid: int) -> bool:
    """Whether *pid* is alive; a zombie is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
