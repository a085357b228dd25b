"""What a provider says that a call has used, and what that costs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.contract.events import Usage

_PER = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """US dollars for a million tokens.

    Attributes:
        cached: For those of the input that the provider had in its cache.
    """

    input: float
    cached: float
    output: float

    def of(self, usage: Usage) -> float:
        """Return what *usage* costs."""
        fresh = max(0, usage.input_tokens - usage.cached_tokens)
        cost = fresh * self.input + usage.cached_tokens * self.cached
        return (cost + usage.output_tokens * self.output) / _PER


def usage_in(document: dict[str, Any]) -> Usage | None:
    """Return the usage that an answer, or an event of a streamed one, tells of its call so far.

    Both dialects count the cached tokens among those of the input, and the reasoning among those
    of the output.
    """
    response = document.get("response")
    told = (response if isinstance(response, dict) else document).get("usage")
    if not isinstance(told, dict):
        return None
    responses = "input_tokens" in told
    given, made = ("input", "output") if responses else ("prompt", "completion")
    return Usage(
        input_tokens=_count(told, f"{given}_tokens"),
        output_tokens=_count(told, f"{made}_tokens"),
        cached_tokens=_count(told.get(f"{given}_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(told.get(f"{made}_tokens_details"), "reasoning_tokens"),
        cost_usd=_amount(told, "cost"),  # some providers know it
    )


def priced(usage: Usage, price: Price | None) -> Usage:
    """Return *usage* with its cost: the provider's own word, else by *price*; None: unknown."""
    if usage.cost_usd is not None or price is None:
        return usage
    return usage.model_copy(update={"cost_usd": price.of(usage)})


def added(one: Usage, other: Usage) -> Usage:
    """Return the sum of two usages; what one of them does not know the cost of, is left out."""
    known = [usage.cost_usd for usage in (one, other) if usage.cost_usd is not None]
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        cost_usd=round(sum(known), 9) if known else None,
    )


def _count(told: object, name: str) -> int:
    return int(_amount(told, name) or 0)


def _amount(told: object, name: str) -> float | None:
    """Return what can be counted; a strange provider must not break a call."""
    value = told.get(name) if isinstance(told, dict) else None
    return value if isinstance(value, int | float) and 0 <= value < float("inf") else None
