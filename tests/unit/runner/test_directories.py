"""Run directories are removed whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runner.agents.directories import RunDirectories

if TYPE_CHECKING:
    from pathlib import Path


async def test_one_who_leaves_while_it_is_made_leaves_nothing(tmp_path: Path) -> None:
    """Making it takes a moment; who cancels in that moment never gets to see it."""
    directories = RunDirectories(tmp_path / "sandboxes", prefix="opencode-")

    async def take() -> None:
        async with directories.new():
            await asyncio.Event().wait()

    for _ in range(20):
        task = asyncio.create_task(take())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    assert list((tmp_path / "sandboxes").iterdir()) == []
