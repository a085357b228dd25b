"""Secrets are made once, kept well, and never stand in an environment."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from runner.plumbing.settings import BadSettings
from stack.secrets import open_secrets, take_from_environment

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_not_given_is_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    """The second start finds the same keys: stored data stays readable."""
    first = {name: secret.read() for name, secret in open_secrets(tmp_path / "s", {}).items()}
    second = {name: secret.read() for name, secret in open_secrets(tmp_path / "s", {}).items()}

    assert first == second
    assert "OPENAI_API_KEY" not in first
    assert len(set(first.values())) == len(first)
    assert len(first["KEY_SEALING_KEY"]) == 32
    Fernet(first["KEY_ENCRYPTION_KEYS"])


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    """Whatever the umask is."""
    old = os.umask(0)
    try:
        open_secrets(tmp_path / "s", {})
    finally:
        os.umask(old)

    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "s").iterdir()} == {0o600}


def test_an_emptied_key_is_refused_instead_of_made_anew(tmp_path: Path) -> None:
    """A new key behind one's back would make every stored API key unreadable."""
    open_secrets(tmp_path, {})
    (tmp_path / "key_encryption_keys").write_text("\n")

    with pytest.raises(BadSettings, match="key_encryption_keys is empty"):
        open_secrets(tmp_path, {})


def test_a_secret_from_the_environment_moves_to_memory(tmp_path: Path) -> None:
    """It can be read as often as needed, and stands in no environment and no file."""
    environ = {"OPENAI_API_KEY": "sk-ümlaut", "PATH": "/bin"}

    taken = take_from_environment(environ)

    secret = open_secrets(tmp_path, environ)["OPENAI_API_KEY"]
    assert taken
    assert "OPENAI_API_KEY" not in environ
    assert [secret.read(), secret.read()] == ["sk-ümlaut"] * 2
    assert secret.fd is not None
    assert os.get_inheritable(secret.fd)
    os.close(secret.fd)


def test_nothing_is_taken_from_an_environment_without_secrets() -> None:
    """Then the process need not execute itself anew; an empty variable means: none."""
    environ = {"OPENAI_API_KEY": " ", "PATH": "/bin"}

    assert not take_from_environment(environ)
    assert environ == {"PATH": "/bin"}


def test_a_secret_given_twice_is_refused() -> None:
    """Nobody could say which one counts; the value is not repeated."""
    environ = {"RUNNER_TOKEN": "canary", "RUNNER_TOKEN_FILE": "/run/secrets/token"}

    with pytest.raises(BadSettings, match="keep one of them") as refusal:
        take_from_environment(environ)

    assert "canary" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The operator reads which setting to mend."""
    with pytest.raises(BadSettings, match="RUNNER_TOKEN_FILE can't be read"):
        open_secrets(tmp_path, {"RUNNER_TOKEN_FILE": str(tmp_path / "nowhere")})
