"""What one run may do with the provider, and what its stream is told about it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from runner.contract.events import Usage, UsageUpdated
from runner.credential_proxy.usage import added, priced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runner.contract.events import RunEvent
    from runner.contract.problems import RunFailure
    from runner.credential_proxy.upstreams import Upstream
    from runner.credential_proxy.usage import Price


class Grant:
    """What a door serves: an upstream and a model.

    Attributes:
        model: The only model that may be asked for, as the provider names it.
        upstream: Who answers.
        usage: What the provider says that all calls so far have used.
        failure: Done when the provider has finally failed.
        failed_midway: Whether it had begun to answer: then OpenCode may still have text to tell.
        asked_again: Set when OpenCode comes back after that, having told all it had.
        last_sign: Monotonic time of the last sign of life from the provider.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        model: str,
        tell: Callable[[RunEvent], Awaitable[None]],
        price: Price | None = None,
    ) -> None:
        self.model = model
        self.upstream = upstream
        self.tell = tell
        self.usage = Usage()
        self._price = price
        self.failure: asyncio.Future[RunFailure] = asyncio.get_running_loop().create_future()
        self.failed_midway = False
        self.asked_again = asyncio.Event()
        self.last_sign = time.monotonic()

    async def used(self, usage: Usage) -> None:
        """Add what one call has used, and tell the sum."""
        total = added(self.usage, priced(usage, self._price))
        if total != self.usage:
            self.usage = total
            await self.tell(UsageUpdated(**total.model_dump()))

    def fail(self, failure: RunFailure, *, midway: bool = False) -> None:
        """Say that the provider has finally failed; the first word counts."""
        if not self.failure.done():
            self.failed_midway = midway
            self.failure.set_result(failure)

    def sign_of_life(self) -> None:
        """Note that the provider is not silent."""
        self.last_sign = time.monotonic()
