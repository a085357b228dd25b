"""Blocking work in a thread, without leaving it behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what *function* returns; if cancelled, only when it has returned.

    So whoever cleans up afterwards has nobody at work beside him. *function* must be short.
    """
    results: list[T] = []

    async def run() -> None:
        results.append(await asyncio.to_thread(function, *args, **kwargs))

    await finish(run())
    return results[0]
