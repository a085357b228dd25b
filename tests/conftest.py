"""Fixtures every test may use: the real PocketBase and a user nobody else has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.pocketbase import run_pocketbase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pocketbase import RunningPocketBase, User

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session")
def pocketbase(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPocketBase]:
    """One real server for the whole run; tests keep apart by having users of their own."""
    with run_pocketbase(tmp_path_factory.mktemp("pocketbase")) as server:
        yield server


@pytest.fixture
def alice(pocketbase: RunningPocketBase) -> User:
    """A user without a key."""
    return pocketbase.new_user("Älice Ünger")
