"""Wait until the whole stack says that it can do its job."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from stack.supervisor import PartFailed

_POLL_S = 0.2
_ANSWER_TIMEOUT_S = 10.0


async def until_healthy(origin: str, *, within_s: float) -> None:
    """Ask `/opencode/health` until it is "ok", or at the end of *within_s* at least "degraded".

    Raises:
        PartFailed: It is not; the text says what was heard last.
    """
    last: dict[str, Any] = {}
    try:
        async with (
            asyncio.timeout(within_s),
            ClientSession(timeout=ClientTimeout(total=_ANSWER_TIMEOUT_S)) as http,
        ):
            while last.get("status") != "ok":
                last = await _ask(http, f"{origin}/opencode/health") or last
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        if last.get("status") != "degraded":
            raise PartFailed(f"not ready after {within_s:.0f} s: {_summary(last)}") from None


async def _ask(http: ClientSession, url: str) -> dict[str, Any] | None:
    try:
        async with http.get(url) as response:
            answer = await response.json(content_type=None)
    except (ClientError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _summary(health: dict[str, Any]) -> str:
    """Name the parts and their states, e.g. "pocketbase ok, runner down"."""
    parts = (
        f"{name} {part['status']}"
        for name, part in health.items()
        if isinstance(part, dict) and "status" in part
    )
    return ", ".join(parts) or "the gateway does not answer"
