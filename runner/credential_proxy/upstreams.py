"""Whom a run's requests go to, and in which dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from aiohttp import web

    from runner.credential_proxy.grants import Grant

Api = Literal["responses", "chat"]

PATHS: dict[Api, str] = {"responses": "/responses", "chat": "/chat/completions"}
"""The one path below the base URL that each dialect needs; everything else is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request of OpenCode that has passed the checks.

    Attributes:
        body: As it came.
        document: The same, parsed.
    """

    body: bytes
    document: dict[str, object]


class Upstream(Protocol):
    """Something that answers model calls."""

    @property
    def api(self) -> Api:
        """Dialect it speaks."""

    async def answer(self, request: web.Request, call: Call, grant: Grant) -> web.StreamResponse:
        """Answer *call* on *request*, streaming.

        Failures are told to *grant*; OpenCode then gets an answer that it does not retry.
        """
