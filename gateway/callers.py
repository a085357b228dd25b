"""Who asks for runs, and what they want."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.auth.tokens import Identity
    from runner.contract.requests import Language, Permission


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks, and how.

    Attributes:
        identity: Who it is.
        token: What they showed; empty for callers without an account.
        request_id: Of this request.
        language: What to speak with them.
    """

    identity: Identity
    token: str
    request_id: str
    language: Language

    @property
    def subject(self) -> str:
        """What the runner knows them as."""
        return self.identity.user_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What a caller wants, checked."""

    text: str
    model: str | None
    permission: Permission | None = None
    idempotency_key: str | None = None
