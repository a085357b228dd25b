"""How fast places become free, going by how fast they did lately. Pure."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, pstdev

_USUAL_RUN_S = 10.0
"""What a run is taken to last, as if so many had been seen, until some have."""
_USUAL_SEEN = 16

_SHORTEST_S = 0.001
_FEW = 4

_DEVIATIONS = 2.0
"""How many standard deviations of bad luck a forecast allows for: kept in 19 of 20 cases."""


class Pace:
    """Watches places become free while all are taken.

    Args:
        slots: How many runs go on at once: so many may end in one go.
    """

    def __init__(self, *, slots: int) -> None:
        self._usual_s = [_USUAL_RUN_S / slots] * _USUAL_SEEN
        self._intervals: deque[float] = deque(maxlen=max(64, 2 * slots))
        self._since: float | None = None
        self._learn()

    def freed(self, now: float) -> None:
        """Note that a place has become free."""
        if self._since is not None:
            self._intervals.append(now - self._since)
            self._since = now
            self._learn()

    def watch(self, now: float, *, full: bool) -> None:
        """Note whether all places are taken; only while they are, intervals mean something."""
        if not full:
            self._since = None
        elif self._since is None:
            self._since = now

    def time_for(self, count: int, now: float) -> float:
        """Return in how many seconds *count* more places will most likely have become free."""
        if count <= 0:
            return 0.0
        unsure = self._deviation_s * math.sqrt(count + count * count / self._seen)
        forecast = count * self._mean_s + _DEVIATIONS * unsure
        silent_s = 0.0 if self._since is None else now - self._since
        return max(forecast, self._longest_s, silent_s)

    def apart_s(self, places: int) -> float:
        """Return how far apart to use *places* one after the other.

        The fewer they are, the less they even out: what nobody uses meanwhile is lost.
        """
        unevenness = (self._deviation_s / self._mean_s) ** 2
        return self._mean_s * (1 + 2 * unevenness / places)

    def _learn(self) -> None:
        known = self._intervals if len(self._intervals) >= _FEW else self._usual_s
        self._seen = len(known)
        self._longest_s = max(known)
        self._mean_s = max(_SHORTEST_S, fmean(known))
        # Few intervals may look more regular than they are.
        self._deviation_s = max(self._mean_s, pstdev(known))
