"""Which of the formats on offer a caller likes best (RFC 9110 §12.5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runner.contract.problems import NotAcceptable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_EXACT = 3


class _Range(NamedTuple):
    main: str
    sub: str
    quality: float

    def specificity(self, offer: str) -> int:
        """Return how exactly the range names *offer*: 0 not at all, 3 by its full name."""
        main, _, sub = offer.partition("/")
        if (self.main, self.sub) == (main, sub):
            return _EXACT
        if (self.main, self.sub) == (main, "*"):
            return 2
        return 1 if (self.main, self.sub) == ("*", "*") else 0


def negotiate(
    accept: str | None, offers: Sequence[str], *, aliases: Mapping[str, str] | None = None
) -> str:
    """Return the best of *offers*; between equals the one named more exactly, then the earlier.

    *aliases* are other names of offers, for callers who ask for nothing on offer.

    Raises:
        NotAcceptable: None will do.
    """
    ranges = list(_ranges(accept or ""))
    if not ranges:
        return offers[0]
    best, best_rank = offers[0], (0.0, 0)
    for offer in offers:
        exactness, quality = max((range_.specificity(offer), range_.quality) for range_ in ranges)
        if exactness and quality > 0 and (quality, exactness) > best_rank:
            best, best_rank = offer, (quality, exactness)
    if best_rank == (0.0, 0):
        for alias, offer in (aliases or {}).items():
            if any(range_.specificity(alias) == _EXACT and range_.quality for range_ in ranges):
                return offer
        raise NotAcceptable(allowed=", ".join(offers))
    return best


def _ranges(accept: str) -> Iterator[_Range]:
    for part in accept.split(","):
        name, *parameters = (piece.strip() for piece in part.lower().split(";"))
        main, _, sub = name.partition("/")
        if main:
            yield _Range(main, sub, _quality(parameters))


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
