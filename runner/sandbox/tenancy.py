"""Which user a sandbox runs as, and what of the host it finds in its own file system."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.problems import SandboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

# No distribution gives these to anybody; where only few users are mapped, as in a rootless
# container, the second choice.
_RANGES = (range(0x70000000, 0x70100000), range(50_000, 60_000))

_ELF = b"\x7fELF"
_MAX_PROGRAMS = 64
_READ_AND_EXECUTE = 0o005


class Tenants:
    """Unprivileged users, one per sandbox at a time; none where the runner isn't root."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int | None:
        """Return a user nobody else has; give it back with `free`.

        Raises:
            SandboxUnavailable: The runner is root, but no such users exist here.
        """
        if os.geteuid() != 0:
            return None
        users = usable_users(Path("/proc/self/uid_map").read_text(encoding="ascii"))
        while (user := users[secrets.randbelow(len(users))]) in self._taken:
            pass
        self._taken.add(user)
        return user

    def free(self, user: int | None) -> None:
        """Let *user* be taken again."""
        if user is not None:
            self._taken.discard(user)


def usable_users(uid_map: str) -> range:
    """Return the users for sandboxes under *uid_map*, the text of `/proc/self/uid_map`.

    Raises:
        SandboxUnavailable: There are none.
    """
    for wanted in _RANGES:
        for line in uid_map.splitlines():
            first, _, count = (int(word) for word in line.split())
            if first <= wanted.start and wanted.stop <= first + count:
                return wanted
    raise SandboxUnavailable(
        reason="root without other users to switch to: start the runner as an ordinary user"
    )


def find_programs(entries: Sequence[Path]) -> dict[str, Path]:
    """Return name → program for *entries*: programs, or directories with such.

    Only programs that run by themselves: a script would need its interpreter, a link may lead
    anywhere. The first of a name wins.
    """
    found: dict[str, Path] = {}
    for entry in entries:
        for path in sorted(entry.iterdir()) if entry.is_dir() else [entry]:
            if len(found) < _MAX_PROGRAMS and _is_program(path):
                found.setdefault(path.name, path.resolve())
    return found


def _is_program(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def require_usable(path: Path) -> None:
    """See that every user may run *path*.

    Raises:
        SandboxUnavailable: Only its owner may.
    """
    if path.stat().st_mode & _READ_AND_EXECUTE != _READ_AND_EXECUTE:
        raise SandboxUnavailable(reason=f"only its owner may run {path.name}: chmod o+rx")
