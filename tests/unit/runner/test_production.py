"""In production a service does not start with a secret that somebody could guess."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

import gateway.settings
import runner.settings
from runner.contract.problems import SandboxUnavailable
from runner.plumbing.settings import BadSettings
from runner.plumbing.strength import is_weak
from runner.sandbox.select import select_backend
from stack.generate import GENERATED
from stack.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_STRONG = {
    "ENVIRONMENT": "production",
    "RUNNER_TOKEN": secrets.token_urlsafe(32),
    "PB_SUPERUSER_PASSWORD": secrets.token_urlsafe(18),
    "KEY_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    "KEY_SEALING_KEY": secrets.token_hex(16),
}


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("", id="empty"),
        pytest.param("hK3vQ9", id="short"),
        pytest.param("abababababababababab", id="monotonous"),
        pytest.param("please-change-me-now-42", id="to-be-changed"),
        pytest.param("MyPassword-1234-5678", id="word"),
    ],
)
def test_what_people_type_is_weak(secret: str) -> None:
    """Short ones, patterns, and what examples have."""
    assert is_weak(secret)


@pytest.mark.parametrize("make", GENERATED.values(), ids=GENERATED.keys())
def test_what_we_make_is_strong(make: Callable[[], str]) -> None:
    """`make secrets` makes nothing that is refused."""
    assert not is_weak(make())


@pytest.mark.parametrize("name", sorted(_STRONG.keys() - {"ENVIRONMENT"}))
def test_the_gateway_refuses_weak_secrets_in_production(name: str) -> None:
    """It names the secret and what to do, and shows no value."""
    with environment(_STRONG | {name: "changeme"}), pytest.raises(BadSettings) as caught:
        gateway.settings.load()

    assert f"{name} is too weak" in str(caught.value)
    assert "make secrets" in str(caught.value)
    assert "changeme" not in str(caught.value)


def test_the_runner_refuses_a_weak_token_in_production() -> None:
    """The operator's key is not ours to judge."""
    token = {"RUNNER_TOKEN": "changeme", "OPENAI_API_KEY": "sk-1"}
    with environment(_STRONG | token), pytest.raises(BadSettings, match="RUNNER_TOKEN"):
        runner.settings.load()


def test_strong_secrets_are_taken() -> None:
    """Both services start with them."""
    with environment(_STRONG | {"OPENAI_API_KEY": "sk-1"}):
        assert gateway.settings.load().environment == "production"
        assert runner.settings.load().environment == "production"


def test_elsewhere_weak_secrets_are_taken() -> None:
    """On a developer's machine nobody has to be kept out."""
    with environment(_STRONG | {"ENVIRONMENT": "development", "RUNNER_TOKEN": "t"}):
        assert runner.settings.load().runner_token.get_secret_value() == "t"


def test_production_keeps_tenants_apart(tmp_path: Path) -> None:
    """`process` isolates nothing."""
    with environment(_STRONG | {"RUNNER_SANDBOX": "process"}):
        settings = runner.settings.load()

    with pytest.raises(SandboxUnavailable) as caught:
        select_backend(settings, tmp_path)

    assert "not in production" in str(caught.value.params["reason"])
