"""What a sandbox is, whoever makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from asyncio import StreamReader
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one sandbox may use at most."""

    memory_bytes: int
    processes: int
    cpus: float
    disk_bytes: int
    open_files: int = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Inside:
    """What a command in the sandbox sees: its own names for what it has.

    Attributes:
        home: Its private HOME.
        workspace: Where it works.
        tmp: Its private directory for temporary files.
        door_url: Address of the only service it can reach, `http://127.0.0.1:PORT`.
    """

    home: Path
    workspace: Path
    tmp: Path
    door_url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxSpec:
    """One command, the only directory it may write, and all it may know.

    Attributes:
        command: Program and arguments, as paths of the host. A backend with an image of its own
            takes what is not in the system folders from there, by its name.
        directory: The run's own directory on the host: holds `home`, `workspace` and `tmp`,
            made by the caller, who also removes it.
        environment: Makes the command's whole environment from what it will see.
        path: Programs of the host that the command may use, or directories with such, in
            order. Backends that hide the host show only programs that run by themselves; one
            with an image of its own has its own.
        grace_s: How long it may take to end by itself when asked.
    """

    command: Sequence[str]
    directory: Path
    environment: Callable[[Inside], Mapping[str, str]]
    limits: Limits
    path: Sequence[Path] = field(default=())
    grace_s: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The limit that ended a sandbox: code and parameters of a `RunFailure`."""

    code: str
    params: Mapping[str, object] = field(default_factory=dict)


async def no_verdict() -> Verdict | None:
    """Tell nothing: for backends that enforce no limit."""
    return None


class Stdin(Protocol):
    """Where a command's input goes; the part of `asyncio.StreamWriter` that is needed."""

    def write(self, data: bytes) -> None:
        """Take *data*."""

    async def drain(self) -> None:
        """Wait until there is room for more.

        Raises:
            ConnectionError: Nobody reads any more.
        """

    def close(self) -> None:
        """End the input."""


class Process(Protocol):
    """A running command; the part of `asyncio.subprocess.Process` that is needed."""

    @property
    def stdin(self) -> Stdin | None:
        """Its input."""

    @property
    def stdout(self) -> StreamReader | None:
        """Its output."""

    @property
    def stderr(self) -> StreamReader | None:
        """Its messages."""

    @property
    def returncode(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""

    async def wait(self) -> int:
        """Wait until it has ended; return how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sandbox:
    """A running command in its sandbox.

    Attributes:
        process: The command.
        door: Listening stream socket that only this sandbox can reach (or, where the backend
            says `door_is_identity = False`, that other processes could reach too). The caller
            serves it; the backend closes it after the sandbox has ended.
        inside: What the command sees.
        verdict: Tells which limit the command ran into, if any. The backend ends the whole
            sandbox when it hits one; so ask when the command has ended or closed its stdout.
    """

    process: Process
    door: socket.socket
    inside: Inside
    verdict: Callable[[], Awaitable[Verdict | None]] = no_verdict


class SandboxBackend(Protocol):
    """A way to start a command apart from everybody else's."""

    @property
    def name(self) -> str:
        """Name used in settings, logs and metrics."""

    @property
    def door_is_identity(self) -> bool:
        """Whether only the sandbox itself can connect to its door.

        Where it isn't so, a run token has to stand in.
        """

    def enforced(self, limits: Limits) -> Mapping[str, str]:
        """Return limit → what enforces it here.

        `cgroup-v2`, `cgroup-v1`, `container` (the engine's cgroup) and `rlimit` are the
        kernel's; `watch` is the runner's own look, several times a second; then there is
        `nothing`.
        """

    async def check(self) -> None:
        """See whether sandboxes can be made on this host.

        Raises:
            SandboxUnavailable: They can't; `reason` in its params says how to mend it.
        """

    def start(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Start *spec*; on exit nothing it started is alive any more.

        Raises:
            SandboxUnavailable: The backend cannot enforce *spec* on this host.
            OpenCodeUnavailable: The command can't be started.
        """

    async def sweep(self, directory: Path) -> None:
        """End what a killed runner left alive for the run directory *directory*."""
