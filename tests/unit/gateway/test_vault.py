"""Keys in, unreadable text out; and back, as long as the encryption keys are there."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from gateway.vault import BadVaultKeys, Vault
from runner.contract.problems import KeyUnreadable

OLD, NEW = (SecretStr(Fernet.generate_key().decode()) for _ in range(2))
SEALING = SecretStr("k" * 32)
KEY = SecretStr("sk-something")


def test_a_key_comes_back() -> None:
    """What is stored shows nothing of the key, and is good as it is."""
    vault = Vault([NEW], sealing_key=None)

    stored = vault.encrypt(KEY)
    revealed = vault.reveal(stored)

    assert stored.startswith("enc:v1:")
    assert "something" not in stored
    assert revealed is not None
    assert (revealed.key, revealed.rewrite) == (KEY, None)


def test_older_keys_still_read_and_ask_for_a_rewrite() -> None:
    """Rotation: what the old key encrypted is to be encrypted with the new one."""
    revealed = Vault([NEW, OLD], sealing_key=None).reveal(
        Vault([OLD], sealing_key=None).encrypt(KEY)
    )

    assert revealed is not None
    assert revealed.key == KEY
    assert revealed.rewrite is not None
    again = Vault([NEW], sealing_key=None).reveal(revealed.rewrite)
    assert again is not None
    assert again.key == KEY


def test_plain_keys_from_before_are_used_and_encrypted() -> None:
    """A plain value works, and is to be encrypted."""
    revealed = Vault([NEW], sealing_key=None).reveal(" sk-plain \n")

    assert revealed is not None
    assert revealed.key.get_secret_value() == "sk-plain"
    assert revealed.rewrite is not None


@pytest.mark.parametrize("nothing", ["", "  "])
def test_nothing_is_nothing(nothing: str) -> None:
    """No key is no error."""
    assert Vault([NEW], sealing_key=None).reveal(nothing) is None


@pytest.mark.parametrize("bad", ["enc:v1:", "enc:v1:ä", "enc:v2:x", "enc:seal:", "enc:seal:AAAA"])
@pytest.mark.parametrize("sealing", [None, SEALING])
def test_what_cannot_be_read_is_told(bad: str, sealing: SecretStr | None) -> None:
    """Never is a damaged value taken for a key."""
    with pytest.raises(KeyUnreadable):
        Vault([NEW], sealing_key=sealing).reveal(bad)


def test_unusable_settings_are_told_without_their_values() -> None:
    """The text names the setting and what it must be."""
    with pytest.raises(BadVaultKeys, match="KEY_ENCRYPTION_KEYS") as encryption:
        Vault([SecretStr("not-a-key")], sealing_key=None)
    with pytest.raises(BadVaultKeys, match="KEY_SEALING_KEY") as sealing:
        Vault([NEW], sealing_key=SecretStr("too-short"))
    with pytest.raises(BadVaultKeys):
        Vault([], sealing_key=None)

    assert "not-a-key" not in str(encryption.value)
    assert "too-short" not in str(sealing.value)
