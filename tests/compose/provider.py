"""The scripted provider as a program: the prompt says how it answers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tests.support.fake_provider import Plan, fake_provider

if TYPE_CHECKING:
    from tests.support.fake_provider import Seen

PORT = 8000
LONG = "a-long-answer"
ENDLESS = "an-endless-answer"
LONG_PIECES = [f"{number} " for number in range(60)]


def plan(seen: Seen) -> Plan:
    """Return how to answer the last message."""
    asked = json.dumps(seen.body["messages"][-1])
    if ENDLESS in asked:
        return Plan(pieces=["and so on "] * 10_000, interval_s=0.2)
    if LONG in asked:
        return Plan(pieces=LONG_PIECES, interval_s=0.2)
    return Plan(pieces=["Hello ", "from ", "the ", "provider."])


async def main() -> None:
    """Serve until killed."""
    async with fake_provider(PORT, host="0.0.0.0") as provider:
        provider.plan = plan
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
