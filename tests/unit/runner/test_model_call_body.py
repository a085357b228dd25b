"""What a model call may ask for: what is checked is what goes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.credential_proxy.body import BodyRefused, checked

CALL = {"model": "granted", "input": [{"role": "user", "content": "Hi"}], "stream": True}


def sent(body: dict[str, Any] | bytes) -> dict[str, Any]:
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    document: dict[str, Any] = json.loads(checked(given, api="responses", model="granted").body)
    return document


def test_an_ordinary_call_goes_out_as_it_is() -> None:
    """With its tools, and a picture that it carries itself."""
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    call = CALL | {
        "tools": [{"type": "function", "name": "bash", "parameters": {}}],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "ü\ud800"}, picture]}
        ],
    }

    assert sent(call) == call


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "other", "model": "granted", "input": []}',
        b'{"model": "granted", "Model": "other", "input": []}',
        b'{"model": "granted", "models": ["other"], "route": "fallback", "input": []}',
        b'{"model": "granted", "previous_response_id": "resp_1", "background": true, "input": []}',
    ],
)
def test_what_is_not_checked_does_not_go_out(body: bytes) -> None:
    """Another reader of the body could understand it otherwise."""
    assert sent(body) == {"model": "granted", "input": []}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"model": ["granted"]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "mcp", "server_url": "http://host.example"}]},
        {"tools": ["web_search"]},
        {"input": [{"content": [{"type": "input_image", "image_url": "http://host.example"}]}]},
        {"input": [{"content": [{"image_url": {"url": "https://host.example/?secret"}}]}]},
        {"input": [{"content": [{"type": "input_file", "file_url": "http://host.example"}]}]},
        {"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_ways_out_through_the_provider_are_refused(change: dict[str, Any]) -> None:
    """Other models, tools that the provider carries out, addresses that it would fetch."""
    with pytest.raises(BodyRefused) as refused:
        sent(CALL | change)

    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"model": "granted", "input": [' + b"[]," * 1_000_001 + b"0]}", 413),
    ],
    ids=["empty", "list", "no-text", "deep", "many"],
)
def test_what_is_no_call_is_refused(body: bytes, status: int) -> None:
    """Also what would take far more memory than it has bytes."""
    with pytest.raises(BodyRefused) as refused:
        sent(body)

    assert refused.value.status == status
