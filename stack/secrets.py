"""The stack's secrets: given by the operator or made at the first start.

A part gets a secret as the name of a file to read, never in its environment or command line.
A secret given as an environment variable is in no file either: it lives in anonymous memory
and goes to the parts that need it as an inherited file descriptor.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.plumbing.settings import BadSettings
from stack.generate import GENERATED, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

_FD_FOLDER = Path("/dev/fd")

NAMES = frozenset({*GENERATED, "OPENAI_API_KEY"})
"""Every variable that holds a secret; each may be given as `<NAME>_FILE` too."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret's whereabouts; the value itself is read where it is used.

    Attributes:
        path: The file to read it from.
        fd: The descriptor behind *path* that a process has to inherit, if it is one.
        generated: Whether the stack made it, in a file the operator can look into.
    """

    path: Path
    fd: int | None = None
    generated: bool = False

    def read(self) -> str:
        """Return the value."""
        return self.path.read_text(encoding="utf-8").strip()


def take_from_environment(environ: MutableMapping[str, str]) -> bool:
    """Move secrets out of *environ* into anonymous memory, named by `<NAME>_FILE` instead.

    Returns:
        Whether there were any. This process's first environment can still be read in /proc
        then, so it should execute itself anew with the changed *environ*.

    Raises:
        BadSettings: A secret is given twice.
    """
    taken = False
    for name in sorted(NAMES):
        value = environ.pop(name, "")
        if not value.strip():
            continue
        if environ.get(f"{name}_FILE"):
            raise BadSettings(f"{name} and {name}_FILE are both set; keep one of them")
        environ[f"{name}_FILE"] = str(_FD_FOLDER / str(_in_memory(name, value)))
        taken = True
    return taken


def open_secrets(folder: Path, environ: Mapping[str, str]) -> dict[str, Secret]:
    """Return every secret there is by name, making those that the stack can make itself.

    Raises:
        BadSettings: A file can't be read or written, or is empty.
    """
    found = {}
    for name in sorted(NAMES):
        given = environ.get(f"{name}_FILE")
        if given:
            found[name] = _given(name, Path(given))
        elif name in GENERATED:
            found[name] = _generated(folder / name.lower(), GENERATED[name])
    return found


def _given(name: str, path: Path) -> Secret:
    secret = Secret(path.absolute(), fd=int(path.name) if path.parent == _FD_FOLDER else None)
    _must_have_value(f"{name}_FILE", secret)
    return secret


def _generated(path: Path, make: Callable[[], str]) -> Secret:
    secret = Secret(path, generated=True)
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            write(path, make())
    except OSError as exc:
        raise BadSettings(f"{path} can't be written: {exc.strerror}") from exc
    _must_have_value(str(path), secret)
    return secret


def _must_have_value(what: str, secret: Secret) -> None:
    """Refuse an empty or unreadable file; a lost key is not made anew behind one's back."""
    try:
        value = secret.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSettings(f"{what} can't be read: {type(exc).__name__}") from exc
    if not value:
        raise BadSettings(f"{what} is empty")


def _in_memory(name: str, value: str) -> int:
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.write(fd, value.encode())
    fcntl.fcntl(
        fd,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK,
    )
    os.set_inheritable(fd, True)  # noqa: FBT003
    return fd
