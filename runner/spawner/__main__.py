"""`python -m runner.spawner`: the only process that holds Docker's socket."""

from __future__ import annotations

import asyncio
import signal

import structlog

from runner.plumbing.logging import configure_logging
from runner.plumbing.settings import BadSettings, refuse
from runner.spawner import settings as spawner_settings
from runner.spawner.engine import EngineFailed
from runner.spawner.server import serve

_SERVICE = "spawner"

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def main() -> None:
    """Serve until SIGTERM."""
    try:
        settings = spawner_settings.load()
    except BadSettings as exc:
        refuse(_SERVICE, exc)
    configure_logging(service=_SERVICE, level=settings.log_level, log_format=settings.log_format)
    try:
        asyncio.run(_serve(settings))
    except EngineFailed as exc:
        refuse(_SERVICE, exc)
    except OSError as exc:
        refuse(_SERVICE, f"can't listen at {settings.spawner_socket}: {exc.strerror}")


async def _serve(settings: spawner_settings.Settings) -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with serve(settings):
        log.info(
            "spawner_ready",
            image=settings.spawner_image,
            runtime=settings.spawner_runtime or "the engine's default",
        )
        await ending.wait()


if __name__ == "__main__":
    main()
