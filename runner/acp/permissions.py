"""What is answered to an agent that asks whether it may."""

from __future__ import annotations

from typing import Any

_ALLOW_KINDS = ("allow_once", "allow_always")
_REJECT_KINDS = ("reject_once", "reject_always")


def decide(params: dict[str, Any], *, allow: bool) -> dict[str, Any]:
    """Return the result of a `session/request_permission` with *params*.

    The operator's policy stands in OpenCode's own configuration, where most things are either
    allowed or denied. What still asks is answered by *allow*, at once: nobody waits unheard.
    """
    options = [o for o in params.get("options") or () if isinstance(o, dict)]
    for kind in _ALLOW_KINDS if allow else _REJECT_KINDS:
        for option in options:
            if option.get("kind") == kind:
                return {"outcome": {"outcome": "selected", "optionId": option.get("optionId")}}
    return {"outcome": {"outcome": "cancelled"}}
