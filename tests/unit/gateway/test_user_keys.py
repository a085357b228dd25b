"""Users' keys: a run never fails because a key could not be stored in a better form."""

from __future__ import annotations

import math

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from gateway.auth.tokens import ANONYMOUS, Identity
from gateway.user_keys import UserKeys
from gateway.vault import Vault
from runner.contract.problems import NotFound, PocketBaseUnavailable, ServiceError, TokenInvalid

ALICE = Identity(user_id="a" * 15, name="Alice", expires_at=math.inf)


class Records:
    """Records in memory, whose writes can fail."""

    def __init__(self, stored: str | None, failure: ServiceError | None = None) -> None:
        self.stored = stored
        self.failure = failure
        self.writes = 0

    async def read_api_key(self, user_id: str) -> str:
        if self.stored is None:
            raise NotFound
        return self.stored

    async def write_api_key(self, user_id: str, value: str) -> None:
        self.writes += 1
        if self.failure is not None:
            raise self.failure
        self.stored = value


def keys_in(records: Records) -> UserKeys:
    vault = Vault([SecretStr(Fernet.generate_key().decode())], sealing_key=None)
    return UserKeys(records, vault=vault)


@pytest.mark.parametrize("failure", [PocketBaseUnavailable(), NotFound()])
async def test_a_key_is_used_even_if_it_cannot_be_rewritten(failure: ServiceError) -> None:
    """The next use tries again."""
    records = Records("sk-plain", failure)
    keys = keys_in(records)

    for _ in range(2):
        assert await keys.reveal(ALICE) == SecretStr("sk-plain")

    assert (records.stored, records.writes) == ("sk-plain", 2)


async def test_a_key_is_rewritten_once() -> None:
    """Then it is in its best form."""
    records = Records("sk-plain")
    keys = keys_in(records)

    for _ in range(2):
        assert await keys.reveal(ALICE) == SecretStr("sk-plain")

    assert records.writes == 1


async def test_anonymous_callers_have_no_key() -> None:
    """And nobody asks for it."""
    keys = keys_in(Records(None))

    assert await keys.reveal(ANONYMOUS) is None
    assert not await keys.is_set(ANONYMOUS)


async def test_a_user_who_is_gone_is_not_signed_in() -> None:
    """Deleted a moment ago: the token is not good any more."""
    with pytest.raises(TokenInvalid):
        await keys_in(Records(None)).reveal(ALICE)
    with pytest.raises(TokenInvalid):
        await keys_in(Records("", NotFound())).store(ALICE, SecretStr("sk-x"))
