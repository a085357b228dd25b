"""What a token says about itself, and names that are safe to print."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.tokens import one_line, read_unverified, token_of
from runner.contract.problems import TokenInvalid

GOOD = {"id": "abcdefghijklmno", "type": "auth", "collectionId": "_pb_users_auth_", "exp": 2000}


def token(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


def test_claims_are_read() -> None:
    """Who, and until when."""
    claims = read_unverified(token(GOOD), now=1999)

    assert (claims.user_id, claims.expires_at) == ("abcdefghijklmno", 2000)


@pytest.mark.parametrize(
    "claims",
    [
        {**GOOD, "exp": 1999},
        {**GOOD, "exp": "2000"},
        {**GOOD, "exp": None},
        {**GOOD, "exp": float("inf")},
        {**GOOD, "exp": float("nan")},
        {**GOOD, "type": "file"},
        {**GOOD, "id": "a/b"},
        {**GOOD, "id": 5},
        {**GOOD, "collectionId": None},
        [],
        "x",
    ],
)
def test_hopeless_claims_are_refused(claims: object) -> None:
    """What PocketBase could never accept costs no question."""
    with pytest.raises(TokenInvalid):
        read_unverified(token(claims), now=1999)


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    """Whatever somebody sends as a token, it is refused and nothing else."""
    with pytest.raises(TokenInvalid):
        read_unverified(text, now=0)


@given(st.binary())
def test_no_payload_does_more_than_be_refused(payload: bytes) -> None:
    """Whatever stands in a token, it is refused and nothing else."""
    with pytest.raises(TokenInvalid):
        read_unverified(f"a.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c", now=0)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("Bearer", None),
        ("Bearer  ", None),
        ("a.b.c", "a.b.c"),
        ("bearer a.b.c", "a.b.c"),
        ("Basic eDp5", "Basic eDp5"),
    ],
)
def test_the_token_in_the_header(header: str | None, found: str | None) -> None:
    """None is: did not try. Anything else has to prove itself."""
    assert token_of(header) == found


@given(st.text())
def test_names_become_one_line(text: str) -> None:
    """No name steers a terminal or begins a new line."""
    assert one_line(text).isprintable()
