"""Whether what is sampled over time stays as it is. Pure."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Point = tuple[float, float]
"""When, and how much."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How much more at the end of the time looked at than at its beginning is still noise.

    Attributes:
        share: Of the usual value.
        least: In any case, in the value's unit.
    """

    share: float
    least: float

    def of(self, usual: float) -> float:
        """Return it in the value's unit."""
        return max(self.least, self.share * usual)


@dataclass(frozen=True, kw_only=True)
class Trend:
    """How a value went over the second half of the time; in the first one things settle.

    Attributes:
        usual: Its median.
        growth: What it gained from the beginning of that half to the end: the slope times the time.
    """

    usual: float
    growth: float
    tolerance: float

    @property
    def is_steady(self) -> bool:
        """Whether it did not grow."""
        return self.growth <= self.tolerance


def trend(points: Sequence[Point], tolerance: Tolerance) -> Trend:
    """Return how the second half of *points* went."""
    first, last = points[0][0], points[-1][0]
    late = [point for point in points if point[0] >= (first + last) / 2]
    usual = statistics.median(value for _, value in late)
    growth = slope(late) * (late[-1][0] - late[0][0])
    return Trend(usual=usual, growth=growth, tolerance=tolerance.of(usual))


def slope(points: Sequence[Point]) -> float:
    """Return the median of the slopes between any two of *points*: single peaks don't count."""
    slopes = [
        (later[1] - sooner[1]) / (later[0] - sooner[0])
        for sooner, later in itertools.combinations(sorted(points), 2)
        if later[0] > sooner[0]
    ]
    return statistics.median(slopes) if slopes else 0.0
