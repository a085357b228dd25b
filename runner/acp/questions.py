"""What OpenCode asks of its client, and who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.acp.connection import MethodNotFound
from runner.acp.permissions import decide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    AskPermission = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Questions:
    """Answers what OpenCode asks of its client; no to everything, before there is a run."""

    def __init__(self) -> None:
        self.on_permission: AskPermission | None = None

    async def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the result of one request."""
        if method != "session/request_permission":
            raise MethodNotFound
        if self.on_permission is None:
            return decide(params, allow=False)
        return await self.on_permission(params)
