"""Prometheus metrics of a service, on an address of their own: nobody outside needs them."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prometheus_client import CollectorRegistry

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@asynccontextmanager
async def metrics_served(
    registry: CollectorRegistry, *, host: str, port: int, setting: str
) -> AsyncIterator[None]:
    """Serve what *registry* knows at `/metrics` while the block runs; 0: not at all.

    A port that is taken is told in the log, with the *setting* to change, and nothing worse: the
    service's work does not depend on being watched, and a second one on this machine is no fault.

    Raises:
        OSError: The address can't be listened on for another reason.
    """
    if not port:
        yield
        return

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/metrics", get_metrics)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    try:
        await _listen(server, host, port, setting)
        yield
    finally:
        await finish(server.cleanup())


async def _listen(server: web.AppRunner, host: str, port: int, setting: str) -> None:
    try:
        await web.TCPSite(server, host, port).start()
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        log.warning("metrics_not_served", host=host, port=port, advice=f"set {setting}, or 0")
    else:
        log.info("metrics_served", host=host, port=port)
