"""Which release of the contract gateway and runner speak: they may be one apart during an update.

Whoever changes what crosses the wire raises `CONTRACT` by one for the release. Against the release
before only additions are allowed: fields with defaults, kinds of events, routes. What is removed,
or means something else, must have been out of use for one release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.contract import headers
from runner.contract.problems import ContractMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTRACT = 1
_BEFORE_THERE_WAS_ONE = 0


def spoken_in(told: Mapping[str, str]) -> int:
    """Return what the other side speaks, by the headers it *told*."""
    number = told.get(headers.CONTRACT, "")
    return int(number) if number.isdecimal() else _BEFORE_THERE_WAS_ONE


def must_fit(*, gateway: int, runner: int) -> None:
    """See whether the two can work together.

    Raises:
        ContractMismatch: They are further apart than one release.
    """
    if abs(gateway - runner) > 1:
        raise ContractMismatch(gateway=gateway, runner=runner)
