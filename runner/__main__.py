"""`python -m runner`: read the settings, serve until SIGTERM."""

from __future__ import annotations

import sys

import uvloop

from runner import settings as runner_settings
from runner.app import create_app
from runner.contract.problems import SandboxUnavailable
from runner.plumbing.logging import configure_logging
from runner.plumbing.process import raise_descriptor_limit
from runner.plumbing.settings import BadSettings, refuse
from runner.serving import serve

_SERVICE = "runner"


def main() -> None:
    """Run the service."""
    try:
        settings = runner_settings.load()
    except BadSettings as exc:
        refuse(_SERVICE, exc)
    configure_logging(service=_SERVICE, level=settings.log_level, log_format=settings.log_format)
    raise_descriptor_limit()
    try:
        uvloop.run(serve(create_app(settings), settings))
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
