"""Lines and events survive however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.contract import events
from runner.contract.wire import LineDecoder, LineTooLong, decode_event, encode_event

LINES = st.lists(st.binary(min_size=1, max_size=40).filter(lambda b: b"\n" not in b), max_size=12)


@given(lines=LINES, cuts=st.lists(st.integers(0, 500), max_size=8))
def test_lines_do_not_depend_on_chunk_boundaries(lines: list[bytes], cuts: list[int]) -> None:
    """A pipe may split the stream anywhere; the lines stay the same."""
    stream = b"".join(line + b"\n" for line in lines)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    decoder = LineDecoder()

    got = [
        line for start, end in itertools.pairwise(edges) for line in decoder.feed(stream[start:end])
    ]

    assert got == lines
    assert not decoder.has_partial_line


def test_a_line_over_the_limit_is_refused_before_it_is_whole() -> None:
    """Memory is bounded, also against a line that never ends."""
    decoder = LineDecoder(max_line_bytes=10)
    decoder.feed(b"12345")

    with pytest.raises(LineTooLong):
        decoder.feed(b"678901")


@given(st.text(), st.integers(0, 10**9))
def test_text_comes_out_as_it_went_in(text: str, seq: int) -> None:
    """Line breaks, umlauts, emoji: one line on the wire, the same event behind it."""
    event = events.TextDelta(seq=seq, text=text.encode("utf-8", "ignore").decode())

    line = encode_event(event)

    assert line.count(b"\n") == 1
    assert decode_event(line) == event


def test_fields_of_a_newer_runner_are_passed_over() -> None:
    """One release more on the other side breaks nothing."""
    line = b'{"type":"run.cancelled","seq":3,"by":"user","new":{"a":1}}'

    assert decode_event(line) == events.RunCancelled(seq=3, by="user")
