"""What an operator sees: everything needed, and one line to paste."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from stack.banner import Banner
from stack.first_run import Accounts
from stack.secrets import Secret
from stack.settings import StackSettings

if TYPE_CHECKING:
    from pathlib import Path

DEMO = Accounts(demo_exists=True, demo_password_works=True, demo_token="tok.en")


@pytest.fixture
def passwords(tmp_path: Path) -> tuple[Secret, Secret]:
    """The superuser's and the demo user's, made by the stack."""
    for name in ("super", "demo"):
        (tmp_path / name).write_text(f"{name}-password\n")
    return Secret(tmp_path / "super", generated=True), Secret(tmp_path / "demo", generated=True)


def block(passwords: tuple[Secret, Secret], accounts: Accounts) -> str:
    settings = StackSettings(gateway_port=8123)
    return Banner(
        settings=settings,
        superuser_password=passwords[0],
        demo_password=passwords[1],
        accounts=accounts,
    ).text()


def test_it_has_every_address_and_account(passwords: tuple[Secret, Secret]) -> None:
    """Nobody has to look anything up."""
    text = block(passwords, DEMO)

    for word in (
        *("http://127.0.0.1:8123/debug.html", "http://127.0.0.1:8123/_/"),
        *("admin@example.com", "super-password", "demo@example.com", "demo-password"),
    ):
        assert word in text


def test_the_curl_line_is_one_shell_command(passwords: tuple[Secret, Secret]) -> None:
    """It survives a shell's splitting as it stands."""
    line = next(li for li in block(passwords, DEMO).splitlines() if li.startswith("curl "))

    url = "http://127.0.0.1:8123/opencode/stream?prompt=Say%20hello"
    assert shlex.split(line) == ["curl", "-N", "-H", "Authorization: Bearer tok.en", url]


def test_a_password_that_was_given_is_not_repeated(passwords: tuple[Secret, Secret]) -> None:
    """The operator's own choice stays where the operator keeps it."""
    given = Secret(passwords[0].path)

    assert "super-password" not in block((given, passwords[1]), DEMO)


def test_a_changed_demo_password_is_not_shown_as_if_it_worked(
    passwords: tuple[Secret, Secret],
) -> None:
    """The line to paste works all the same."""
    changed = Accounts(demo_exists=True, demo_password_works=False, demo_token="tok.en")

    text = block(passwords, changed)

    assert "demo-password" not in text
    assert "\ncurl -N " in text


def test_without_a_demo_user_it_says_so(passwords: tuple[Secret, Secret]) -> None:
    """A house with users of its own gets none."""
    nobody = Accounts(demo_exists=False, demo_password_works=False, demo_token="")

    text = block(passwords, nobody)

    assert "none" in text
    assert "curl" not in text
