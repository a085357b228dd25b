"""structlog set-up, the same for both services."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_KEYS = frozenset(
    {"authorization", "api_key", "key", "password", "prompt", "secret", "token", "text"}
)


def configure_logging(*, service: str, level: str = "info", log_format: str = "auto") -> None:
    """Set up structlog for this process; call once, before the application is built.

    Args:
        service: Bound to every line.
        level: `debug`, `info`, `warning` or `error`.
        log_format: `json`, `console`, or `auto`: console on a terminal, else JSON.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_service(service),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    tail: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [_exception_without_locals, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    numeric = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Foreign libraries (aiohttp, asyncio) speak to the standard library's logging.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(numeric, logging.WARNING), force=True)


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace values that must never reach a log, whoever logged them."""
    return {key: "[hidden]" if key in _SECRET_KEYS else value for key, value in event.items()}


def _add_service(service: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"service": service, **event}

    return add


_exception_without_locals = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
"""Locals stay out: a handler's locals are prompts, tokens and keys."""
