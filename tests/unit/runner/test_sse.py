"""Reading along a provider's stream: its end, its failures."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.events import Usage
from runner.credential_proxy.sse import StreamWatch, watch_of


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


USED = {"prompt_tokens": 7, "completion_tokens": 11}
RESPONSES_USED = {"input_tokens": 7, "output_tokens": 11}


@pytest.mark.parametrize(
    "answer",
    [
        sse(TEXT, CHAT_END, {"choices": [], "usage": USED}) + b"data: [DONE]\n\n",
        sse({**TEXT, "usage": {"prompt_tokens": 7}}, {**TEXT, "usage": USED}),
        sse({**TEXT, "usage": USED}, {**CHAT_END, "usage": None}),
        sse({"type": "response.completed", "response": {"usage": RESPONSES_USED}}),
        sse({"type": "response.incomplete", "response": {"usage": RESPONSES_USED}}),
    ],
    ids=["behind-the-end", "with-each-piece", "before-the-end", "completed", "incomplete"],
)  # fmt: skip
def test_usage_is_seen_wherever_it_is_told(answer: bytes) -> None:
    """The last word counts: it is of the whole call each time."""
    watch = watch_of("text/event-stream; charset=utf-8")

    watch.feed(answer)

    assert watch.usage == Usage(input_tokens=7, output_tokens=11)


def test_a_plain_answer_tells_its_usage_too() -> None:
    """Whoever asks for no stream is counted as well."""
    watch = watch_of("application/json")
    body = json.dumps({"choices": [], "usage": USED}).encode()

    watch.feed(body[:9])
    watch.feed(body[9:])

    assert watch.ended
    assert watch.usage == Usage(input_tokens=7, output_tokens=11)


def test_no_json_is_no_usage() -> None:
    """A provider may answer with anything."""
    watch = watch_of("text/html")

    watch.feed(b'<html>"usage": {')

    assert (watch.failure, watch.usage) == (None, None)


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
