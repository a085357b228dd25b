"""Who is calling: the identity behind a token, and what a token says about itself."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from typing import Protocol

from runner.contract.problems import TokenInvalid

_MAX_TOKEN_CHARS = 4096
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_RECORD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A caller.

    Attributes:
        user_id: Record id in PocketBase; `anonymous` for callers without a token.
        name: What people call them: one line, no control characters.
        expires_at: Until when the token may be trusted at most, as a Unix time.
        signed_in: False for callers without a token.
    """

    user_id: str
    name: str
    expires_at: float
    signed_in: bool = True


ANONYMOUS = Identity(user_id="anonymous", name="anonymous", expires_at=math.inf, signed_in=False)
"""Who callers without a token are, where the operator lets them in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnverifiedClaims:
    """What a token says about itself; anybody can write that."""

    user_id: str
    expires_at: float


class TokenVerifier(Protocol):
    """Something that can tell whose token it is."""

    async def verify(self, token: str) -> Identity:
        """Return the identity behind *token*.

        Raises:
            TokenInvalid: It is no token of a user, or not accepted (any more).
            PocketBaseUnavailable: PocketBase did not answer.
        """


def token_of(authorization: str | None) -> str | None:
    """Return the token in an `Authorization` header: bare, as PocketBase's SDKs send it, or Bearer.

    None stands for: the caller did not try to sign in.
    """
    value = (authorization or "").strip()
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer":
        value = rest.strip()
    return value or None


def read_unverified(unverified_token: str, *, now: float) -> UnverifiedClaims:
    """Return what a token says about itself, to refuse hopeless ones without a question.

    Raises:
        TokenInvalid: It is no token of a PocketBase record, or says itself that it has expired.
    """
    if len(unverified_token) > _MAX_TOKEN_CHARS or not _JWT.fullmatch(unverified_token):
        raise TokenInvalid
    payload = unverified_token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise TokenInvalid from exc
    if not isinstance(claims, dict) or claims.get("type") != "auth":
        raise TokenInvalid
    user_id, expires_at = claims.get("id"), claims.get("exp")
    if not isinstance(user_id, str) or not _RECORD_ID.fullmatch(user_id):
        raise TokenInvalid
    if not isinstance(claims.get("collectionId"), str):
        raise TokenInvalid
    if not isinstance(expires_at, int | float) or not now < expires_at < math.inf:
        raise TokenInvalid
    return UnverifiedClaims(user_id=user_id, expires_at=float(expires_at))


def one_line(text: str) -> str:
    """Return *text* without line breaks and other characters that steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
