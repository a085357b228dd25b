"""File descriptors and the event loop."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Wait until *fd* has something to read, or has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
