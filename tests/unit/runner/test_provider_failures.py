"""What a provider's refusal means, and that it never repeats a key."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.credential_proxy.failures import failure_of, reason_in, retry_after_s


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "provider-refused"),
        (401, "key-refused"),
        (403, "key-refused"),
        (404, "provider-refused"),
        (429, "provider-busy"),
        (500, "provider-error"),
        (502, "provider-error"),
        (503, "provider-busy"),
        (529, "provider-busy"),
    ],
)
def test_statuses_have_stable_codes(status: int, code: str) -> None:
    """Programs may rely on them."""
    assert failure_of(status, b"", None).code == code


@given(before=st.text(max_size=400), after=st.text(max_size=400))
def test_a_key_is_never_repeated(before: str, after: str) -> None:
    """Some providers quote the key they refuse."""
    secret = "sk-very-secret-1234567890"
    body = json.dumps({"error": {"message": before + secret + after}}).encode()

    assert secret not in failure_of(400, body, secret).sentence("en")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":[]}', b'{"error":null}', b"7"])
def test_any_body_is_borne(body: bytes) -> None:
    """An error page of some proxy is no reason to crash."""
    assert reason_in(body, None) == "?"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), (None, None)],
)
def test_retry_after_is_read_in_seconds_only(header: str | None, seconds: float | None) -> None:
    """A date is not worth a clock comparison: our own delay will do."""
    assert retry_after_s(header) == seconds
