"""Every attack, in the sandboxes of a root runner, of an ordinary user's, and in containers."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.attacks import table
from tests.support import attacker as support

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.support.attacker import Attacker

WHO = ["root", "user"] if os.geteuid() == 0 else ["user"]
CONTAINER = pytest.param("container", marks=[pytest.mark.compose, pytest.mark.timeout(600)])

_RESULTS = pytest.StashKey[table.Results]()


@pytest.fixture(scope="session", params=[*WHO, CONTAINER, "docker"])
def attacker(request: pytest.FixtureRequest) -> Iterator[Attacker]:
    """Somebody with a shell in a sandbox; after each attack the neighbour must be well."""
    with support.attacker(request.param) as somebody:
        yield somebody


class Verdicts:
    """Takes down for the table what an attack came to, at the place the test looked at."""

    def __init__(self, results: table.Results, place: str) -> None:
        self._results = results
        self._place = place

    def note(self, title: str, *, held: bool) -> None:
        """Note that the attack *title* was *held* off, or was not."""
        row = self._results.setdefault(title, {})
        row[self._place] = row.get(self._place, True) and held


@pytest.fixture
def verdicts(request: pytest.FixtureRequest) -> Verdicts:
    """The table's notes for this test."""
    callspec = getattr(request.node, "callspec", None)
    place = callspec.params.get("place", WHO[0]) if callspec else WHO[0]
    return Verdicts(request.config.stash.setdefault(_RESULTS, {}), place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take down the attacks on the backend itself: each is a test that passes or fails."""
    report = yield
    if call.when == "call" and isinstance(item, pytest.Function):
        _note(item, held=report.passed)
    return report


def _note(item: pytest.Function, *, held: bool) -> None:
    if "attacker" in item.fixturenames:
        results = item.config.stash.setdefault(_RESULTS, {})
        place = str(item.callspec.params["attacker"])
        Verdicts(results, place).note(table.title_of(item.function), held=held)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the notes for `python -m tests.attacks.table`, beside those of earlier runs."""
    results = session.config.stash.get(_RESULTS, {})
    if results:
        with suppress(PermissionError):  # an ordinary user in somebody else's checkout
            table.add_results(results)
