"""What a model call may ask for. Pure.

Provider and door must read the same in a body, so it goes out as it was understood here, not as
it came: a second `model`, an unknown field or one in other letters is gone. What would make the
provider itself reach out (hosted tools, remote MCP servers, pictures by address) would be a way
out of a sandbox that has none; it is refused.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from runner.credential_proxy.upstreams import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.credential_proxy.upstreams import Api

_MAX_ENTRIES = 1_000_000
"""Of lists and objects: a body of brackets would take twenty times its size to hold."""

_BOTH = frozenset(
    {
        *("model", "stream", "stream_options", "temperature", "top_p", "top_logprobs", "store"),
        *("tools", "tool_choice", "parallel_tool_calls", "user", "metadata", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "reasoning"),
    }
)
_FIELDS: dict[Api, frozenset[str]] = {
    "responses": _BOTH
    | {"input", "instructions", "max_output_tokens", "include", "text", "truncation"},
    "chat": _BOTH
    | {
        *("messages", "max_tokens", "max_completion_tokens", "stop", "seed", "logit_bias"),
        *("frequency_penalty", "presence_penalty", "logprobs", "response_format", "usage"),
        *("reasoning_effort", "verbosity", "thinking", "enable_thinking"),
        *("chat_template_args", "chat_template_kwargs"),
    },
}
_CONVERSATION = ("input", "messages")
_OWN_TOOLS = frozenset({"function", "custom"})
"""Carried out by OpenCode, in the sandbox."""

_ADDRESSES = frozenset({"image_url", "file_url", "audio_url", "video_url"})
_STORED = frozenset({"file_id", "item_reference"})


class BodyRefused(Exception):
    """This body goes no further; the text says why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def checked(body: bytes, *, api: Api, model: str) -> Call:
    """Return what *body* asks for, in the words to send.

    Raises:
        BodyRefused: It is no call, or not one that this run may make.
    """
    document = _parsed(body)
    if document.get("model") != model:
        raise BodyRefused(HTTPStatus.FORBIDDEN, "this model is not granted to this run")
    for tool in document.get("tools") or ():
        if not isinstance(tool, dict) or tool.get("type") not in _OWN_TOOLS:
            raise BodyRefused(HTTPStatus.FORBIDDEN, "tools of the provider are not offered here")
    for part in _objects(*(document.get(name) for name in _CONVERSATION)):
        if part.get("type") in _STORED or _STORED & part.keys():
            raise BodyRefused(HTTPStatus.FORBIDDEN, "what the provider stores is not offered here")
        if not all(_is_inline(part[name]) for name in _ADDRESSES & part.keys()):
            raise BodyRefused(HTTPStatus.FORBIDDEN, "addresses to fetch are not offered here")
    kept = {name: value for name, value in document.items() if name in _FIELDS[api]}
    if api == "chat" and kept.get("stream"):
        # Without it no figures come: whoever asks must not get out of being counted.
        kept["stream_options"] = {"include_usage": True}
    return Call(body=json.dumps(kept).encode(), document=kept)


def _parsed(body: bytes) -> dict[str, Any]:
    if body.count(b",") + body.count(b"[") + body.count(b"{") > _MAX_ENTRIES:
        raise BodyRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body has too many parts")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BodyRefused(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
    return document


def _objects(*values: object) -> Iterator[dict[str, Any]]:
    """Yield every object in *values*, however deep."""
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _is_inline(value: object) -> bool:
    address = value.get("url") if isinstance(value, dict) else value
    return address is None or (isinstance(address, str) and address.startswith("data:"))
