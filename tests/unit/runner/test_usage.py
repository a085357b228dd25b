"""What providers say they used, what it costs, and how it adds up."""

from __future__ import annotations

from typing import Any

import pytest

from runner.contract.events import Usage
from runner.credential_proxy.usage import Price, added, priced, usage_in
from runner.models.prices import parse_prices, prices_for

ALL = Usage(input_tokens=100, output_tokens=20, cached_tokens=60, reasoning_tokens=5)
CHAT = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
RESPONSES = {
    "input_tokens": 100,
    "output_tokens": 20,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens_details": {"reasoning_tokens": 5},
}


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"usage": CHAT}, ALL),
        ({"usage": RESPONSES}, ALL),
        ({"response": {"usage": RESPONSES}}, ALL),
        ({"usage": {**CHAT, "cost": 0.5}}, ALL.model_copy(update={"cost_usd": 0.5})),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": None}}, Usage(input_tokens=3)),
        ({"usage": {"prompt_tokens": -3, "prompt_tokens_details": [1]}}, Usage()),
        ({"usage": {"prompt_tokens": float("inf"), "cost": float("nan")}}, Usage()),
        ({"usage": None}, None),
        ({"response": {"output": []}}, None),
        ({}, None),
    ],
)
def test_both_dialects_are_read_as_far_as_they_tell(
    document: dict[str, Any], usage: Usage | None
) -> None:
    """Missing and strange figures count as none."""
    assert usage_in(document) == usage


def test_cached_tokens_are_cheaper() -> None:
    """They are a part of the input; reasoning is a part of the output."""
    price = Price(input=1, cached=0.1, output=10)

    assert priced(ALL, price).cost_usd == pytest.approx((40 * 1 + 60 * 0.1 + 20 * 10) / 1e6)


def test_the_providers_word_goes_before_our_price() -> None:
    """And where nobody knows, nobody guesses."""
    told = ALL.model_copy(update={"cost_usd": 0.5})

    assert priced(told, Price(input=1, cached=1, output=1)).cost_usd == 0.5
    assert priced(ALL, None).cost_usd is None


def test_calls_add_up() -> None:
    """What one of them did not tell the cost of, does not make the sum unknown."""
    told = ALL.model_copy(update={"cost_usd": 0.5})

    assert added(Usage(), ALL) == ALL
    assert added(told, told) == Usage(
        input_tokens=200, output_tokens=40, cached_tokens=120, reasoning_tokens=10, cost_usd=1
    )
    assert added(told, ALL).cost_usd == 0.5


def test_the_operators_prices_go_before_openais() -> None:
    """Which are known for OpenAI itself alone."""
    told = ("openai/gpt-5-mini=1/0.5/2", "openai/mine=0/0/3")

    prices = prices_for("https://api.openai.com/v1", told)

    assert prices["openai/gpt-5-mini"] == Price(input=1, cached=0.5, output=2)
    assert prices["openai/mine"].output == 3
    assert prices["openai/gpt-4.1-mini"].input == 0.4
    assert "openai/gpt-4.1-mini" not in prices_for("https://example.org/v1", told)


@pytest.mark.parametrize("told", ["x", "openai/x=1/2", "openai/x=1/2/y", "x=1/2/3", "a/b=1/-2/3"])
def test_what_is_no_price_is_refused(told: str) -> None:
    """At the start, not when somebody wants to know."""
    with pytest.raises(ValueError, match="write prices as"):
        parse_prices((told,))
