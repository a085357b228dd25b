"""Upstreams that are no model: the throw-away prompt's answer, and `demo/tools`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runner.credential_proxy.grants import Grant
    from runner.credential_proxy.upstreams import Api, Call

_PIECE_INTERVAL_S = 0.03
_DONE = b"data: [DONE]\n\n"


class WarmUp:
    """Answers the throw-away prompt at the door, so that it reaches no provider."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def answer(self, request: web.Request, call: Call, grant: Grant) -> web.StreamResponse:
        """See `Upstream.answer`."""
        model = str(call.document.get("model"))
        events = _responses_answer(model) if self.api == "responses" else _chat_answer(model, "ok")
        return await _send(request, _all_of(events), grant)


class DemoTools:
    """`demo/tools`: shows a shell command, a file and streaming, and says that it is a script."""

    api: Api = "chat"

    async def answer(self, request: web.Request, call: Call, grant: Grant) -> web.StreamResponse:
        """See `Upstream.answer`."""
        step = _tool_results_since_the_prompt(call.document)
        return await _send(request, _demo_step(step, str(call.document.get("model"))), grant)


def ending(api: Api, model: str) -> bytes:
    """Return the bytes that end a streamed answer, wherever it stands."""
    if api == "chat":
        return b"\n\n" + _encoded(_chat_chunk(model, {}, finish_reason="stop")) + _DONE
    return b"\n\n" + _encoded(_responses_completed(model, []))


async def _send(
    request: web.Request, events: AsyncIterator[dict[str, Any]], grant: Grant
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for event in events:
        grant.sign_of_life()
        await response.write(_encoded(event))
    await response.write(_DONE)
    await response.write_eof()
    return response


def _encoded(event: dict[str, Any]) -> bytes:
    kind = f"event: {event['type']}\n" if "type" in event else ""
    return f"{kind}data: {json.dumps(event)}\n\n".encode()


async def _all_of(events: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for event in events:
        yield event


async def _demo_step(step: int, model: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the answer to the prompt (0), to the command's result (1), to the file's (2)."""
    script: list[tuple[str, str | None, dict[str, Any]]] = [
        (
            "This is demo/tools: a script, not a model. It runs a shell command first. ",
            "bash",
            {
                "command": "echo Hello from the sandbox of $(id -un); uname -sr; pwd; ls -a",
                "description": "Look around in the sandbox",
            },
        ),
        (
            "The command ran inside this run's sandbox. Now it writes a file. ",
            "write",
            {"filePath": "hello.txt", "content": "Hello from demo/tools.\n"},
        ),
        (
            "Done: hello.txt is in the workspace, which goes when the run ends.",
            None,
            {},
        ),
    ]
    text, tool, arguments = script[min(step, len(script) - 1)]
    for piece in text.split(" ")[:-1] if text.endswith(" ") else text.split(" "):
        yield _chat_chunk(model, {"content": piece + " "})
        await asyncio.sleep(_PIECE_INTERVAL_S)
    if tool is not None:
        function = {"name": tool, "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": f"call_{step}", "type": "function", "function": function}
        yield _chat_chunk(model, {"tool_calls": [call]})
    yield _chat_chunk(model, {}, finish_reason="tool_calls" if tool else "stop")


def _tool_results_since_the_prompt(document: dict[str, object]) -> int:
    messages = document.get("messages")
    count = 0
    for message in reversed(messages if isinstance(messages, list) else []):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "user":
            break
        count += role == "tool"
    return count


def _chat_chunk(
    model: str, delta: dict[str, Any], *, finish_reason: str | None = None
) -> dict[str, Any]:
    """Return one `chat.completion.chunk` as OpenAI's API streams them."""
    chunk: dict[str, Any] = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", **delta},
                "finish_reason": finish_reason,
            }
        ],
    }
    if finish_reason is not None:
        chunk["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return chunk


def _chat_answer(model: str, text: str) -> list[dict[str, Any]]:
    return [
        _chat_chunk(model, {"content": text}),
        _chat_chunk(model, {}, finish_reason="stop"),
    ]


def _responses_answer(model: str) -> list[dict[str, Any]]:
    """Return a whole answer as OpenAI's Responses API streams it."""
    response = {"id": "resp_scripted", "object": "response", "created_at": 0, "model": model}
    place = {"item_id": "msg_scripted", "output_index": 0, "content_index": 0}
    item = {"id": "msg_scripted", "type": "message", "role": "assistant"}
    done = {**item, "status": "completed"} | {
        "content": [{"type": "output_text", "text": "ok", "annotations": []}]
    }
    return [
        {
            "type": "response.created",
            "response": {**response, "status": "in_progress", "output": []},
        },
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.output_text.delta", **place, "delta": "ok"},
        {"type": "response.output_text.done", **place, "text": "ok"},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        _responses_completed(model, [done]),
    ]


def _responses_completed(model: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    response = {"id": "resp_scripted", "object": "response", "created_at": 0, "model": model}
    return {
        "type": "response.completed",
        "response": {**response, "status": "completed", "output": output, "usage": usage},
    }
