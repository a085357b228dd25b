"""Run directories: one per sandbox, under one parent, with a prefix only they carry."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from runner.agents.opencode import furnish_home
from runner.plumbing.cleanup import finish
from runner.sandbox.removal import RemovalFailed, remove_tree
from runner.sandbox.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_OPEN_TO_SEARCH = 0o711
_PRIVATE = 0o700
_REMOVAL_ATTEMPTS = 5


class RunDirectories:
    """Makes and removes run directories below *parent*."""

    def __init__(self, parent: Path, *, prefix: str) -> None:
        self._parent = parent
        self._prefix = prefix

    @asynccontextmanager
    async def new(self) -> AsyncIterator[Path]:
        """Yield a new run directory with `home`, `workspace` and `tmp`; remove it afterwards."""
        made: list[Path] = []
        try:
            # Whoever is cancelled meanwhile has made one all the same.
            await in_thread(lambda: made.append(self._make()))
            yield made[0]
        finally:
            for directory in made:
                await finish(self._remove(directory))

    async def sweep(self, end_processes: Callable[[Path], Awaitable[None]]) -> int:
        """Remove what a killed runner left; return how many directories that were."""
        left = await asyncio.to_thread(self._left)
        for directory in left:
            await end_processes(directory)
            await self._remove(directory)
        return len(left)

    def _make(self) -> Path:
        self._parent.mkdir(parents=True, exist_ok=True)
        self._parent.chmod(_OPEN_TO_SEARCH)
        directory = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent)).resolve()
        directory.chmod(_OPEN_TO_SEARCH)
        for name in ("home", "workspace", "tmp"):
            (directory / name).mkdir(mode=_PRIVATE)
        furnish_home(directory / "home")
        return directory

    def _left(self) -> list[Path]:
        if not self._parent.is_dir():
            return []
        return [
            entry.resolve()
            for entry in self._parent.iterdir()
            if entry.name.startswith(self._prefix) and entry.is_dir() and not entry.is_symlink()
        ]

    async def _remove(self, directory: Path) -> None:
        for _ in range(_REMOVAL_ATTEMPTS):  # a dying process may still write
            try:
                await remove_tree(directory)
            except RemovalFailed:
                await asyncio.sleep(0.1)
            else:
                return
        log.error("run_directory_left", directory=directory.name)
