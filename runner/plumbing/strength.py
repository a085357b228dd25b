"""Whether a secret of ours may be used in production; what the rules catch is typed, not made."""

from __future__ import annotations

import re

_SHORTEST = 16
_FEWEST_CHARACTERS = 8
_COMMON = re.compile("change|passw|secret|default|example", re.IGNORECASE)


def is_weak(secret: str) -> bool:
    """Return whether *secret* is short, monotonous or made of the usual words."""
    return (
        len(secret) < _SHORTEST
        or len(set(secret)) < _FEWEST_CHARACTERS
        or _COMMON.search(secret) is not None
    )
