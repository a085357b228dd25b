"""`python -m gateway`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import errno
import signal

import structlog
import uvloop

from gateway.app import create_app, serving
from gateway.settings import Settings, load
from gateway.spool import SpoolUnwritable
from gateway.vault import BadVaultKeys
from runner.plumbing.logging import configure_logging
from runner.plumbing.settings import BadSettings, refuse

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve until a signal says to end.

    Raises:
        OSError: The address can't be listened on.
        BadVaultKeys: The encryption keys can't be used.
        SpoolUnwritable: `DATA_DIR` can't be written.
    """
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    app = create_app(settings)
    async with serving(app, host=settings.gateway_host, port=settings.gateway_port) as port:
        log.info("gateway_listening", host=settings.gateway_host, port=port)
        await ending.wait()
        log.info("gateway_ending")


def main() -> None:
    """Read the settings and serve; what can't be is told in one line."""
    try:
        settings = load()
    except BadSettings as exc:
        refuse("gateway", exc)
    configure_logging(service="gateway", level=settings.log_level, log_format=settings.log_format)
    try:
        uvloop.run(serve(settings))
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
