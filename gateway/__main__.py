"""`python -m gateway`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys

import structlog
import uvloop

from gateway.app import create_app, serving
from gateway.settings import Settings, load
from gateway.spool import Spool, SpoolUnwritable
from gateway.vault import BadVaultKeys
from gateway.workers import Workers, reserved
from runner.plumbing.logging import configure_logging
from runner.plumbing.process import raise_descriptor_limit
from runner.plumbing.settings import BadSettings, refuse

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_METRICS_PORTS_APART = 10  # the next one is the runner's
_LAST_PORT = 65535


async def serve(settings: Settings, *, port: int, shared: bool = False) -> None:
    """Serve on *port* until a signal says to end; a *shared* one together with others.

    Raises:
        OSError: The address can't be listened on.
        BadVaultKeys: The encryption keys can't be used.
        SpoolUnwritable: `DATA_DIR` can't be written.
    """
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    app, host = create_app(settings), settings.gateway_host
    async with serving(app, host=host, port=port, shared=shared) as listening:
        log.info("gateway_listening", host=host, port=listening)
        await ending.wait()
        log.info("gateway_ending")


def serve_together(settings: Settings) -> int:
    """Serve in `GATEWAY_WORKERS` processes; return the exit status. See `serve` for the errors."""
    create_app(settings)  # what is wrong is told once, not by each
    Spool.create(settings.spool_dir).close()
    with reserved(settings.gateway_host, settings.gateway_port) as port:

        def work(number: int) -> None:
            structlog.contextvars.bind_contextvars(worker=number)
            uvloop.run(serve(_of_worker(settings, number), port=port, shared=True))

        return Workers(settings.gateway_workers, work).run()


def _of_worker(settings: Settings, number: int) -> Settings:
    """Return *settings* with a metrics port of the worker's own: each counts for itself."""
    port = settings.gateway_metrics_port
    if port:
        port = min(port + _METRICS_PORTS_APART * number, _LAST_PORT)
    return settings.model_copy(update={"gateway_metrics_port": port})


def main() -> None:
    """Read the settings and serve; what can't be is told in one line."""
    try:
        settings = load()
    except BadSettings as exc:
        refuse("gateway", exc)
    configure_logging(service="gateway", level=settings.log_level, log_format=settings.log_format)
    raise_descriptor_limit()
    try:
        if settings.gateway_workers > 1:
            sys.exit(serve_together(settings))
        uvloop.run(serve(settings, port=settings.gateway_port))
    except BadVaultKeys as exc:
        refuse("gateway", exc)
    except SpoolUnwritable as exc:
        refuse("gateway", f"DATA_DIR: {exc}")
    except OSError as exc:
        address = f"{settings.gateway_host}:{settings.gateway_port}"
        if exc.errno == errno.EADDRINUSE:
            refuse("gateway", f"{address} is taken; end what listens there or set GATEWAY_PORT")
        refuse("gateway", f"{address} can't be listened on: {exc.strerror}")


if __name__ == "__main__":
    main()
