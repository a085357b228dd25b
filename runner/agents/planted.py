"""Keeps what lies in a workspace or HOME from configuring OpenCode.

OpenCode 1.18 has two readers of configuration. Switches close the older one; the newer one
heeds none and runs plugins of `.opencode` and `opencode.json` as it boots. So what it would read
is out of its sight until it has booted; afterwards it reads none of it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runner.agents.opencode import furnish_home
from runner.plumbing.cleanup import finish
from runner.sandbox.threads import in_thread
from runner.sandbox.trees import give

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_PLACES = {
    "workspace": (".opencode", "opencode.json", "opencode.jsonc"),
    "home": (".opencode", ".config"),
}
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = "aside"


@asynccontextmanager
async def out_of_sight(directory: Path) -> AsyncIterator[None]:
    """While the block runs, OpenCode finds no configuration in the run directory *directory*.

    Afterwards everything is where it was, but for what has been made in its place meanwhile.
    """
    moved = await in_thread(_set_aside, directory)
    try:
        yield
    finally:
        await finish(asyncio.to_thread(_put_back, directory, moved))


def _set_aside(directory: Path) -> list[tuple[str, str]]:
    moved = []
    for folder, names in _PLACES.items():
        for name in names:
            aside = directory / f"{_ASIDE}-{folder}"
            aside.mkdir(mode=0o700, exist_ok=True)
            if _move(directory / folder, aside, name):
                moved.append((folder, name))
    if ("home", ".config") in moved:
        furnish_home(directory / "home")
    return moved


def _put_back(directory: Path, moved: list[tuple[str, str]]) -> None:
    for folder, name in moved:
        place = directory / folder
        if not os.path.lexists(place / name):
            _move(directory / f"{_ASIDE}-{folder}", place, name)
            _give_to_owner(place, name)


def _move(source: Path, target: Path, name: str) -> bool:
    """Rename *name*, whatever it is, from *source* to *target*; whether there was one."""
    here, there = os.open(source, _DIRECTORY), os.open(target, _DIRECTORY)
    try:
        os.rename(name, name, src_dir_fd=here, dst_dir_fd=there)
    except FileNotFoundError:
        return False
    finally:
        os.close(here)
        os.close(there)
    return True


def _give_to_owner(place: Path, name: str) -> None:
    """Let *name* belong to whom its folder belongs: the sandbox's user may be a new one."""
    owner = place.stat()
    if owner.st_uid == os.geteuid():
        return
    if stat.S_ISDIR((place / name).lstat().st_mode):
        give(place / name, uid=owner.st_uid, gid=owner.st_gid, stop=threading.Event())
    else:
        os.chown(place / name, owner.st_uid, owner.st_gid, follow_symlinks=False)
