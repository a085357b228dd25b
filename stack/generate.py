"""Make secrets: the first start of `python -m stack` does, and `make secrets` for compose.

Usage: python -I stack/generate.py FOLDER

It uses the standard library only: a server that runs containers has nothing else installed.
"""

from __future__ import annotations

import base64
import os
import secrets
import string
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ALPHANUMERIC = string.ascii_letters + string.digits
CONTAINER_USER = 10001  # as in Dockerfile
_GIVEN = "openai_api_key"


def _word(length: int) -> str:
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(length))


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


GENERATED: Mapping[str, Callable[[], str]] = {
    "RUNNER_TOKEN": lambda: _word(43),
    "PB_SUPERUSER_PASSWORD": lambda: _word(24),
    "DEMO_USER_PASSWORD": lambda: _word(16),
    "KEY_ENCRYPTION_KEYS": _fernet_key,
    "KEY_SEALING_KEY": lambda: _word(32),
}
"""Every secret that can be made, and how."""


def write(path: Path, value: str, *, mode: int = 0o600) -> None:
    """Write whole or not at all: a start that is cut short leaves no half key behind."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(f"{value}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(mode)
    draft.replace(path)


def for_containers(folder: Path) -> list[Path]:
    """Make the secrets that compose.yaml names and *folder* lacks; return their files.

    A container reads a file with the host's owner and mode. Root gives the files to the
    containers' user; another user can't, so there everybody may read the files in a folder that
    nobody else can enter.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = []
    for name in (*map(str.lower, GENERATED), _GIVEN):
        path = folder / name
        if path.exists() or name == "demo_user_password":
            continue
        make = GENERATED.get(name.upper(), str)  # of the given one: an empty file
        write(path, make(), mode=0o400 if os.geteuid() == 0 else 0o444)
        if os.geteuid() == 0:
            os.chown(path, CONTAINER_USER, CONTAINER_USER)
        made.append(path)
    return made


if __name__ == "__main__":
    for new in for_containers(Path(sys.argv[1])):
        sys.stdout.write(f"made {new}\n")
