"""Run directories, looked at by somebody who does not trust their owner."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = ("home", "workspace", "door")
"""What of a run directory its container sees."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadRunDirectory(ValueError):
    """The run directory is not one; the text says why."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run directory.

    Attributes:
        uid: Who owns what is in it, and whom its container runs as.
        identities: Name → device and inode, which say in the container whether it got this very
            directory or what somebody has put in its place meanwhile.
    """

    path: Path
    uid: int
    identities: dict[str, str]


def look_at(runs: Path, run: str) -> RunDirectory:
    """Return the directory of *run* below *runs*; no link is followed below *runs*.

    Raises:
        BadRunDirectory: It is not there, is something else, or belongs to root.
    """
    identities: dict[str, str] = {}
    owners: set[int] = set()
    try:
        parent = os.open(runs / run, _DIRECTORY)
        try:
            for name in SHOWN:
                fd = os.open(name, _DIRECTORY, dir_fd=parent)
                info = os.fstat(fd)
                os.close(fd)
                identities[name] = f"{info.st_dev}:{info.st_ino}"
                owners.add(info.st_uid)
        finally:
            os.close(parent)
    except OSError as exc:
        raise BadRunDirectory(f"the run directory can't be used: {exc.strerror}") from exc
    if len(owners) != 1:
        raise BadRunDirectory("the run directory has several owners")
    uid = owners.pop()
    if uid == 0:
        raise BadRunDirectory("the run directory belongs to root: no sandbox runs as root")
    return RunDirectory(path=runs / run, uid=uid, identities=identities)
