"""Cleanup that cancellation cannot cut short."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def finish(cleanup: Coroutine[Any, Any, None]) -> None:
    """Run *cleanup* to its end, then pass on any cancellation that came meanwhile.

    `asyncio.shield` alone would let the caller go on while the cleanup still runs.
    *cleanup* must bound its own waits: nothing else can stop it.
    """
    task = asyncio.create_task(cleanup)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            interrupted = exc
    if interrupted is not None:
        raise interrupted from task.exception()
    task.result()
