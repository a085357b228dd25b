"""The API key of each user: read fresh, kept encrypted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from runner.contract.problems import NotFound, PocketBaseUnavailable, TokenInvalid

if TYPE_CHECKING:
    from pydantic import SecretStr

    from gateway.auth.tokens import Identity
    from gateway.vault import Vault

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_REWRITE_TIMEOUT_S = 3.0


class KeyRecords(Protocol):
    """Where the stored form of the keys is."""

    async def read_api_key(self, user_id: str) -> str:
        """Return what is stored for the user; empty for nothing."""

    async def write_api_key(self, user_id: str, value: str) -> None:
        """Store *value* for the user."""


class UserKeys:
    """Reads and writes users' API keys.

    All methods raise `PocketBaseUnavailable` when the records are out of reach and
    `TokenInvalid` when the user is gone.
    """

    def __init__(self, records: KeyRecords, *, vault: Vault) -> None:
        self._records = records
        self._vault = vault

    async def reveal(self, identity: Identity) -> SecretStr | None:
        """Return the caller's key, None if they have none.

        A key that is not stored in its best form (sealed or plain because an admin typed it in,
        encrypted with an older key) is stored anew; a failure of that does no harm.

        Raises:
            KeyUnreadable: There is one, and it can't be decrypted.
        """
        revealed = self._vault.reveal(await self._stored(identity))
        if revealed is None:
            return None
        if revealed.rewrite is not None:
            try:
                async with asyncio.timeout(_REWRITE_TIMEOUT_S):
                    await self._records.write_api_key(identity.user_id, revealed.rewrite)
            except (PocketBaseUnavailable, NotFound, TimeoutError) as exc:
                log.warning("key_not_rewritten", error=type(exc).__name__)
        return revealed.key

    async def is_set(self, identity: Identity) -> bool:
        """Return whether the caller has a key of their own."""
        return bool((await self._stored(identity)).strip())

    async def store(self, identity: Identity, key: SecretStr | None) -> None:
        """Keep *key* for the caller; None removes it."""
        try:
            await self._records.write_api_key(
                identity.user_id, self._vault.encrypt(key) if key is not None else ""
            )
        except NotFound as exc:
            raise TokenInvalid from exc

    async def _stored(self, identity: Identity) -> str:
        if not identity.signed_in:
            return ""
        try:
            return await self._records.read_api_key(identity.user_id)
        except NotFound as exc:
            raise TokenInvalid from exc
