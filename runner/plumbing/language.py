"""Which of our languages a caller wants (RFC 9110 §12.5.4)."""

from __future__ import annotations

_OURS = ("de", "en")


def choose_language(accept_language: str | None, default: str) -> str:
    """Return `de` or `en`: the best of *accept_language*, else *default*."""
    best, best_quality = default, 0.0
    for part in (accept_language or "").split(","):
        tag, _, parameters = part.partition(";")
        primary = tag.strip().lower().split("-")[0]
        quality = _quality(parameters)
        if primary in _OURS and quality > best_quality:
            best, best_quality = primary, quality
    return best


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0
