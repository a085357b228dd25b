"""`python -m runner`: read the settings, serve until SIGTERM."""

from __future__ import annotations

import sys

from aiohttp import web

from runner import settings as runner_settings
from runner.app import create_app
from runner.contract.problems import SandboxUnavailable
from runner.plumbing.logging import configure_logging
from runner.plumbing.settings import BadSettings, refuse

_SERVICE = "runner"
_SHUTDOWN_TIMEOUT_S = 3.0


def main() -> None:
    """Run the service."""
    try:
        settings = runner_settings.load()
    except BadSettings as exc:
        refuse(_SERVICE, exc)
    configure_logging(service=_SERVICE, level=settings.log_level, log_format=settings.log_format)
    try:
        web.run_app(
            create_app(settings),
            host=settings.runner_host,
            port=settings.port,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
            access_log=None,
            print=None,
        )
    except SandboxUnavailable as exc:
        refuse(_SERVICE, f"{exc}: {exc.params.get('reason', '')}")
    except OSError as exc:
        refuse(
            _SERVICE,
            f"can't listen on {settings.runner_host}:{settings.port} ({exc.strerror}); "
            "end what uses it or set PORT",
        )


if __name__ == "__main__":
    main()
    sys.exit(0)
