"""How a user's API key is kept: encrypted, with keys that can rotate."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from runner.contract.problems import KeyUnreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

_OURS = "enc:v1:"
_SEALED = "enc:seal:"
_ENCRYPTED = "enc:"
_NONCE_BYTES = 12


class BadVaultKeys(ValueError):
    """The encryption keys in the settings can't be used; the text says how to make one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revealed:
    """A key in the clear.

    Attributes:
        key: The API key.
        rewrite: What should be stored instead, where the stored form is not the best one.
    """

    key: SecretStr
    rewrite: str | None


class Vault:
    """Turns API keys into what is stored, and back."""

    def __init__(
        self, encryption_keys: Sequence[SecretStr], *, sealing_key: SecretStr | None
    ) -> None:
        """Take the Fernet keys, newest first, and the key PocketBase's hook seals with.

        Raises:
            BadVaultKeys: A key has the wrong form; no value is told.
        """
        try:
            fernets = [Fernet(key.get_secret_value()) for key in encryption_keys]
            self._newest, self._all = fernets[0], MultiFernet(fernets)
        except (ValueError, binascii.Error, IndexError):
            raise BadVaultKeys(
                "KEY_ENCRYPTION_KEYS: each must be 32 random bytes in URL-safe base64"
            ) from None
        self._seal: AESGCM | None = None
        if sealing_key is not None:
            try:
                self._seal = AESGCM(sealing_key.get_secret_value().encode())
            except ValueError:
                raise BadVaultKeys("KEY_SEALING_KEY: must be 32 characters") from None

    def encrypt(self, key: SecretStr) -> str:
        """Return what to store for *key*."""
        return _OURS + self._newest.encrypt(key.get_secret_value().encode()).decode()

    def reveal(self, stored: str) -> Revealed | None:
        """Return the key behind what is stored; None if there is none.

        Raises:
            KeyUnreadable: It was encrypted with a key that is gone, or damaged.
        """
        stored = stored.strip()
        if not stored:
            return None
        if stored.startswith(_OURS):
            return self._decrypt(stored.removeprefix(_OURS).encode())
        # Typed in by an admin: sealed by PocketBase's hook, or plain from before there was one.
        key = SecretStr(
            self._open_seal(stored.removeprefix(_SEALED)) if stored.startswith(_SEALED) else stored
        )
        if key.get_secret_value().startswith(_ENCRYPTED):
            raise KeyUnreadable
        return Revealed(key=key, rewrite=self.encrypt(key))

    def _decrypt(self, token: bytes) -> Revealed:
        try:
            return Revealed(key=SecretStr(self._newest.decrypt(token).decode()), rewrite=None)
        except InvalidToken:
            pass  # perhaps by an older key
        try:
            key = SecretStr(self._all.decrypt(token).decode())
        except InvalidToken as exc:
            raise KeyUnreadable from exc
        return Revealed(key=key, rewrite=self.encrypt(key))

    def _open_seal(self, text: str) -> str:
        """Undo PocketBase's `$security.encrypt`: base64 of nonce and AES-256-GCM ciphertext."""
        if self._seal is None:
            raise KeyUnreadable
        try:
            raw = base64.b64decode(text, validate=True)
            return self._seal.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None).decode()
        except (binascii.Error, InvalidTag, ValueError) as exc:
            raise KeyUnreadable from exc
