"""What models cost: OpenAI's list prices, and what the operator says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.credential_proxy.usage import Price

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OPENAI = "https://api.openai.com/v1"

FREE = Price(input=0, cached=0, output=0)

_LIST_PRICES: Mapping[str, Price] = {
    "openai/gpt-5.4-mini": Price(input=0.75, cached=0.075, output=4.5),
    "openai/gpt-5.4-nano": Price(input=0.2, cached=0.02, output=1.25),
    "openai/gpt-5.6": Price(input=4, cached=0.4, output=20),
    "openai/gpt-5-mini": Price(input=0.25, cached=0.025, output=2),
    "openai/gpt-4.1-mini": Price(input=0.4, cached=0.1, output=1.6),
}
"""Of the standard service tier, as models.dev has them in the OpenCode that is pinned."""


def prices_for(base_url: str, told: Iterable[str]) -> Mapping[str, Price]:
    """Return the prices by model: OpenAI's own where it is asked, and what an operator *told*."""
    listed = _LIST_PRICES if base_url == _OPENAI else {}
    return {**listed, **parse_prices(told)}


def parse_prices(told: Iterable[str]) -> dict[str, Price]:
    """Return the prices in `provider/model=input/cached/output`, dollars a million tokens each.

    Raises:
        ValueError: That is no price.
    """
    prices = {}
    for entry in told:
        name, _, amounts = entry.partition("=")
        try:
            given, cached, made = (float(amount) for amount in amounts.split("/"))
        except ValueError:
            given = cached = made = -1.0
        if not all(name.partition("/")) or not all(0 <= a < 1e6 for a in (given, cached, made)):  # noqa: PLR2004
            raise ValueError(
                f"write prices as provider/model=input/cached/output, not {entry[:100]}"
            )
        prices[name] = Price(input=given, cached=cached, output=made)
    return prices
