"""Reading along a provider's stream: its end, its failures."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.credential_proxy.sse import StreamWatch


def sse(*documents: object) -> bytes:
    return b"".join(f"data: {json.dumps(d)}\n\n".encode() for d in documents)


TEXT = {"choices": [{"index": 0, "delta": {"content": '"finish_reason" "error"'}}]}
CHAT_END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("stream", "ended", "failure"),
    [
        (sse(TEXT), False, None),
        (sse(TEXT, CHAT_END), True, None),
        (sse(TEXT) + b"data: [DONE]\n\n", True, None),
        (sse({"type": "response.completed", "response": {}}), True, None),
        (sse({"type": "response.incomplete", "response": {}}), True, None),
        (
            sse({"type": "response.failed", "response": {"error": {"message": "broken"}}}),
            False,
            "broken",
        ),
        (sse({"type": "error", "message": "broken", "code": "x"}), False, "broken"),
        (sse(TEXT, {"error": {"message": "broken"}}), False, "broken"),
        (sse({"type": "response.output_text.delta", "delta": '"error"'}), False, None),
        (sse({"choices": [], "error": None}), False, None),
        (b": comment\n\nevent: x\ndata: no json, but an \"error\"\n\n", False, None),
    ],
)  # fmt: skip
def test_ends_and_failures_are_seen(stream: bytes, ended: bool, failure: str | None) -> None:  # noqa: FBT001
    """In both dialects, and not taken from a model's text."""
    watch = StreamWatch()

    watch.feed(stream)

    assert (watch.ended, watch.failure) == (ended, failure)


@given(st.lists(st.integers(0, 400), max_size=6))
def test_where_the_stream_is_cut_does_not_matter(cuts: list[int]) -> None:
    """A network splits it anywhere."""
    stream = sse(TEXT, CHAT_END)
    watch = StreamWatch()

    start = 0
    for end in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        watch.feed(stream[start:end])
        start = end

    assert watch.ended
