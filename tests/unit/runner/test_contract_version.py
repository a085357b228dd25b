"""How far gateway and runner may be apart."""

from __future__ import annotations

import pytest

from runner.contract import headers
from runner.contract.problems import ContractMismatch
from runner.contract.version import must_fit, spoken_in


@pytest.mark.parametrize(("gateway", "runner"), [(5, 5), (5, 4), (4, 5), (0, 1)])
def test_one_release_apart_is_tolerated(gateway: int, runner: int) -> None:
    """In both directions: either may be updated first."""
    must_fit(gateway=gateway, runner=runner)


@pytest.mark.parametrize(("gateway", "runner"), [(5, 3), (3, 5)])
def test_two_releases_apart_are_refused(gateway: int, runner: int) -> None:
    """The refusal tells both numbers, in both languages."""
    with pytest.raises(ContractMismatch) as refusal:
        must_fit(gateway=gateway, runner=runner)

    for language in ("de", "en"):
        sentence = refusal.value.sentence(language)
        assert "Gateway (" in sentence
        assert f" {gateway})" in sentence
        assert f" {runner})" in sentence


@pytest.mark.parametrize(("told", "spoken"), [("3", 3), ("", 0), ("new", 0), ("-1", 0), (None, 0)])
def test_who_tells_nothing_is_from_before_there_was_a_number(told: str | None, spoken: int) -> None:
    """Nor does a strange word break anything."""
    assert spoken_in({} if told is None else {headers.CONTRACT: told}) == spoken
