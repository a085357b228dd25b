"""What a provider's refusal means for the run. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus

from runner.contract.problems import RunFailure

_MAX_REASON_CHARS = 300

RETRIED = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
        529,  # Anthropic-style "overloaded", used by some compatible providers too
    }
)
"""Statuses after which another try makes sense."""


def failure_of(status: int, body: bytes, secret: str | None) -> RunFailure:
    """Return what an answer of *status* with *body* means; *secret* is never repeated."""
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return RunFailure("key-refused", status=status)
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 529}:
        return RunFailure("provider-busy", status=status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return RunFailure("provider-error", status=status)
    return RunFailure("provider-refused", status=status, reason=reason_in(body, secret))


def reason_in(body: bytes, secret: str | None) -> str:
    """Return the provider's own sentence from an error body, cut and without *secret*."""
    try:
        document = json.loads(body)
    except ValueError:
        return "?"
    error = document.get("error", document) if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return scrubbed(message, secret) if isinstance(message, str) else "?"


def scrubbed(words: str, secret: str | None) -> str:
    """Return a provider's *words* on one line, cut, and without *secret*."""
    if secret:
        words = words.replace(secret, "[key]")
    return " ".join(words.split())[:_MAX_REASON_CHARS]


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds in a `Retry-After` header; None for dates and nonsense."""
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
