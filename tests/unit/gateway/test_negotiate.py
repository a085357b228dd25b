"""Content negotiation as RFC 9110 has it."""

from __future__ import annotations

import pytest

from gateway.streaming.negotiate import negotiate
from runner.contract.problems import NotAcceptable

OFFERS = ("text/plain", "text/event-stream", "application/x-ndjson")
TEXT, SSE, NDJSON = OFFERS


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, TEXT),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("application/*", NDJSON),
        ("text/event-stream", SSE),
        ("TEXT/Event-Stream; charset=utf-8", SSE),
        ("text/event-stream, */*", SSE),
        ("*/*, application/x-ndjson", NDJSON),
        ("text/plain;q=0.5, application/x-ndjson;q=0.9", NDJSON),
        ("text/plain;q=0.5, text/event-stream ; q=0.50", TEXT),
        ("text/*;q=0.3, text/plain;q=0.1", SSE),
        ("*/*, text/plain;q=0", SSE),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", TEXT),
        ("text/plain;q=nonsense, text/event-stream;q=0.1", SSE),
        (",,text/event-stream,", SSE),
    ],
)
def test_the_best_offer_is_chosen(accept: str | None, chosen: str) -> None:
    """Quality first, then the more exact name, then the order of the offers."""
    assert negotiate(accept, OFFERS) == chosen


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "text/plain;q=0", "nonsense"])
def test_no_offer_will_do(accept: str) -> None:
    """Then the caller learns what there is."""
    with pytest.raises(NotAcceptable) as refused:
        negotiate(accept, OFFERS)

    assert refused.value.params == {"allowed": ", ".join(OFFERS)}


def test_an_alias_helps_those_who_ask_for_nothing_on_offer() -> None:
    """But nobody who would take an offer by its name."""
    aliases = {"application/json": NDJSON}

    assert negotiate("application/json", OFFERS, aliases=aliases) == NDJSON
    assert negotiate("application/json, text/plain, */*", OFFERS, aliases=aliases) == TEXT
    with pytest.raises(NotAcceptable):
        negotiate("application/json;q=0", OFFERS, aliases=aliases)
