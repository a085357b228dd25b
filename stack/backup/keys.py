"""Which keys users' API keys need: told by fingerprint, never by value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet
from pydantic import SecretStr

from gateway.vault import BadVaultKeys, Vault
from runner.contract.problems import KeyUnreadable
from stack.backup.failures import BackupFailed
from stack.backup.manifest import KeyUse
from stack.secrets import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENCRYPTION = "KEY_ENCRYPTION_KEYS"
SEALING = "KEY_SEALING_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys that are here.

    Attributes:
        encryption: Fernet keys, newest first.
        sealing: What PocketBase's hook seals typed-in API keys with.
    """

    encryption: tuple[SecretStr, ...]
    sealing: SecretStr | None

    def opens(self, stored: str) -> str | None:
        """Return the fingerprint of the key that *stored* needs, "" for none; None: not here."""
        if not stored.strip().startswith("enc:"):
            return ""  # from before there was encryption
        for key in self.encryption:
            if _reveals(Vault([key], sealing_key=None), stored):
                return fingerprint(key)
        if self.sealing is not None and _reveals(_sealed_only(self.sealing), stored):
            return fingerprint(self.sealing)
        return None

    def uses(self, stored: Iterable[str]) -> tuple[list[KeyUse], int]:
        """Return how many of *stored* need which key, and how many none of these opens."""
        found = [self.opens(value) for value in stored]
        named = [(ENCRYPTION, key) for key in self.encryption]
        named += [(SEALING, self.sealing)] if self.sealing is not None else []
        uses = [
            KeyUse(name=name, fingerprint=fingerprint(key), users=found.count(fingerprint(key)))
            for name, key in named
        ]
        return uses, found.count(None)


def keyring(values: Mapping[str, str]) -> Keyring:
    """Return the keys in *values*, which are named as in the settings.

    Raises:
        BackupFailed: One has not the form of a key.
    """
    listed = values.get(ENCRYPTION, "").split(",")
    encryption = tuple(SecretStr(part.strip()) for part in listed if part.strip())
    sealing = SecretStr(values[SEALING]) if values.get(SEALING) else None
    try:
        for key in encryption:
            Vault([key], sealing_key=sealing)
    except BadVaultKeys as exc:
        raise BackupFailed(str(exc)) from None
    return Keyring(encryption=encryption, sealing=sealing)


def present_secrets(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the stack's secrets by name: given in *environ*, else generated in *folder*.

    Raises:
        BackupFailed: A file can't be read.
    """
    found = {}
    for name in sorted(NAMES):
        path = Path(environ.get(f"{name}_FILE") or folder / name.lower())
        try:
            value = environ.get(name, "").strip() or path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as exc:
            raise BackupFailed(f"{name} can't be read from {path}: {type(exc).__name__}") from exc
        if value:
            found[name] = value
    return found


def fingerprint(key: SecretStr) -> str:
    """Return what tells a key from others, and nothing else about it."""
    return hashlib.sha256(b"opencode-multiuser " + key.get_secret_value().encode()).hexdigest()[:16]


def _reveals(vault: Vault, stored: str) -> bool:
    try:
        vault.reveal(stored)
    except KeyUnreadable:
        return False
    return True


def _sealed_only(sealing: SecretStr) -> Vault:
    return Vault([SecretStr(Fernet.generate_key().decode())], sealing_key=sealing)
