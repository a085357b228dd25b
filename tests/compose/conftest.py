"""One stack of containers for all tests: built, brought up, and taken down again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.compose import built_stack, new_user, taken_down

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose import Caller, ComposeStack


@pytest.fixture(scope="session")
def built() -> ComposeStack:
    """The images, built; nothing is up."""
    return built_stack()


@pytest.fixture(scope="session")
def stack(built: ComposeStack) -> Iterator[ComposeStack]:
    """The stack, up and healthy."""
    with taken_down(built):
        built.compose("up", "--detach", "--wait", "--no-build")
        built.until_healthy()
        yield built
    assert built.left() == []


@pytest.fixture
def backups(stack: ComposeStack) -> Path:
    """The folder that backups are written into."""
    return Path(stack.environ["BACKUP_DIR"])


@pytest.fixture
def anna(stack: ComposeStack) -> Caller:
    """A user nobody else has."""
    return new_user(stack)
