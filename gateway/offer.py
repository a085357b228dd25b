"""What the runner offers, remembered for a moment: it is the same for everybody."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from runner.contract.requests import ModelList

_GOOD_FOR_S = 2.0


class Runner(Protocol):
    """Who knows the models."""

    async def models(self, *, request_id: str) -> ModelList:
        """Return the models there are."""


class Offer:
    """The runner's models, at most two seconds old."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._known: ModelList | None = None
        self._known_until = 0.0

    async def models(self, *, request_id: str) -> ModelList:
        """See `RunnerClient.models`."""
        if self._known is None or time.monotonic() >= self._known_until:
            self._known = await self._runner.models(request_id=request_id)
            self._known_until = time.monotonic() + _GOOD_FOR_S
        return self._known
