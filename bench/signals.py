"""SIGTERM ends what was started as Ctrl-C does: nothing of it goes on."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


async def ended_by_sigterm(work: Coroutine[None, None, Result]) -> Result:
    """Return what *work* returns; SIGTERM cancels it."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
