"""Events in the three formats, and lines that are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.streaming.encoders import NdjsonEncoder, SseEncoder, TextEncoder
from gateway.streaming.lines import NoEvent, read_line
from runner.contract.events import (
    RunCancelled,
    RunFailed,
    RunFinished,
    StreamGap,
    TextDelta,
    ToolStarted,
)
from runner.contract.wire import encode_event

if TYPE_CHECKING:
    from gateway.streaming.lines import EventLine
    from runner.contract.events import RunEvent


def line_of(event: RunEvent) -> EventLine:
    return read_line(encode_event(event))


def text_encoder() -> TextEncoder:
    return TextEncoder(user_name="Ä", language="en")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**9))
def test_events_survive_every_format(text: str, seq: int) -> None:
    """Whatever a model says comes out of each format as it went in."""
    line = line_of(TextDelta(seq=seq, text=text))

    sse = SseEncoder().encode(line).decode()
    ndjson = NdjsonEncoder().encode(line)

    assert text_encoder().encode(line) == text.encode()
    assert json.loads(ndjson) == {"type": "text.delta", "text": text, "seq": seq}
    head, _, data = sse.partition("data: ")
    assert head == f"id: {seq}\nevent: text.delta\n"
    assert data.endswith("\n\n")
    assert "\n" not in data.removesuffix("\n\n")
    assert json.loads(data)["text"] == text


def test_text_has_room_for_words_and_the_end_only() -> None:
    """Tools and the like are for the other formats."""
    encode = text_encoder().encode

    assert encode(line_of(ToolStarted(id="1", name="execute", title="ls"))) == b""
    assert encode(line_of(RunFinished(stop_reason="end_turn", duration_s=1))).decode() == (
        "\n[✔ User Ä - Fertig!]\n"
    )
    assert encode(line_of(RunFailed(code="x", message="a\r\nb"))) == b"\n[ERROR] a  b\n"
    gap = encode(line_of(StreamGap(seq=9, from_=3, to=9)))
    assert gap.decode() == "\n[… 7 events are missing here; they could not be kept]\n"
    assert encode(line_of(RunCancelled(by="user"))) == b"\n[ERROR] The run was cancelled\n"


def test_half_a_surrogate_pair_is_no_reason_to_stop() -> None:
    """JSON can escape what has no bytes; the text shows a question mark for it."""
    line = read_line(rb'{"seq": 0, "type": "text.delta", "text": "a\ud83d"}')

    assert text_encoder().encode(line) == b"a?"


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>",
        b"[]",
        b"{}",
        b"5",
        b'{"seq": 0}',
        b'{"seq": "0", "type": "x"}',
        b'{"seq": 0, "type": "a\\nb"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    """Nothing but events passes, whatever stands on the runner's port."""
    with pytest.raises(NoEvent):
        read_line(raw)


def test_an_event_is_read_in_full_only_where_it_has_to_be() -> None:
    """As the runner writes it, its head is enough; what is no JSON behind that says so then."""
    usual, spaced = (
        read_line(b'{"seq":7,"type":"a.b","x":[}'),
        read_line(b'{"seq": 7, "type": "a.b"}'),
    )

    assert (usual.seq, usual.type) == (spaced.seq, spaced.type) == (7, "a.b")
    assert spaced.fields() == {"seq": 7, "type": "a.b"}
    with pytest.raises(NoEvent):
        usual.fields()
    with pytest.raises(NoEvent):
        read_line(b'{"seq":7,"type":"a.b","x":')
