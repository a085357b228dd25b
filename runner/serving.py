"""Serve until a signal says to end; runs that are on may end before."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from runner.keys import RUNS
from runner.plumbing.signals import StopSignals

if TYPE_CHECKING:
    from runner.settings import Settings

_SHUTDOWN_TIMEOUT_S = 3.0


async def serve(app: web.Application, settings: Settings) -> None:
    """Serve *app* until SIGTERM; a second one cuts the wait for runs short.

    Raises:
        OSError: The address can't be listened on.
        SandboxUnavailable: The sandbox backend can't do its work here.
    """
    stop = StopSignals()
    stop.install()
    server = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S
    )
    try:
        if await _set_up(server, stop):
            await web.TCPSite(server, settings.runner_host, settings.port).start()
            await stop.requested.wait()
            await app[RUNS].drain(within_s=settings.runner_drain_s, cut_short=stop.insisted)
    finally:
        await server.cleanup()


async def _set_up(server: web.AppRunner, stop: StopSignals) -> bool:
    """Start what *server* serves; return whether that is done, and not cut short by *stop*."""
    setting_up = asyncio.create_task(server.setup())
    asked = asyncio.create_task(stop.requested.wait())
    await asyncio.wait({setting_up, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if setting_up.done():
        await setting_up
        return True
    setting_up.cancel()
    with suppress(asyncio.CancelledError):
        await setting_up
    return False
