"""Every attack, in the sandboxes of a root runner and of an ordinary user's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import attacker as support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.attacker import Attacker

WHO = ["root", "user"] if os.geteuid() == 0 else ["user"]


@pytest.fixture(scope="session", params=WHO)
def attacker(request: pytest.FixtureRequest) -> Iterator[Attacker]:
    """Somebody with a shell in a sandbox; after each attack the neighbour must be well."""
    with support.attacker(request.param) as somebody:
        yield somebody
