"""A scripted OpenAI-compatible provider: a real HTTP server that answers as it is told.

It speaks chat completions and the Responses API, streams piece by piece, runs tools by
script, and misbehaves in every way the tests need. What to do stands in `provider.plan`,
which a test sets; every request is kept in `provider.requests`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import unused_port

Write = Callable[[bytes], Awaitable[None]]


@dataclass(kw_only=True)
class Seen:
    """One request as the provider saw it."""

    path: str
    authorization: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def tool_results(self) -> int:
        """How many tool results stand after the last user message."""
        count = 0
        for item in reversed(self.body.get("messages") or self.body.get("input") or []):
            if item.get("role") == "user":
                break
            count += item.get("role") == "tool" or item.get("type") == "function_call_output"
        return count


@dataclass(kw_only=True)
class Plan:
    """What the provider does with a request.

    Attributes:
        pieces: The answer's text.
        interval_s: Pause before each piece but the first.
        gate: If set, a piece is sent only after `gate` let it (one release, one piece).
        status: Answer with this status and `message` instead.
        retry_after: `Retry-After` of such an answer.
        drop_after: Break the connection off after so many pieces.
        stall_after: Send nothing more after so many pieces.
        hang: Never answer.
        tools: Tool calls, one a turn, before the text: (name, arguments).
        in_stream_error: Report an error inside the stream after the pieces.
        used: Tokens of the call: of the input, of those cached, of the output, of those reasoning.
        tells_usage_always: With each piece of a chat, not at the end alone.
    """

    pieces: list[str] = field(default_factory=lambda: ["Hello", " world"])
    interval_s: float = 0.0
    gate: asyncio.Semaphore | None = None
    status: int = 200
    message: str = "no"
    retry_after: str | None = None
    drop_after: int | None = None
    stall_after: int | None = None
    hang: bool = False
    tools: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    in_stream_error: str | None = None
    used: tuple[int, int, int, int] = (7, 0, 11, 0)
    tells_usage_always: bool = False


class FakeProvider:
    """The server's state and address."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.plan: Plan | Callable[[Seen], Plan] = Plan()
        self.requests: list[Seen] = []
        self.arrived = asyncio.Event()
        self.open_streams = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Do what the plan says."""
        seen = Seen(
            path=request.path,
            authorization=request.headers.get("Authorization", ""),
            headers={k.lower(): v for k, v in request.headers.items()},
            body=await request.json(),
        )
        self.requests.append(seen)
        self.arrived.set()
        plan = self.plan(seen) if callable(self.plan) else self.plan
        self.open_streams += 1
        try:
            return await self._answer(request, seen, plan)
        except ConnectionResetError:
            return web.Response()  # nobody is there any more to get it
        finally:
            self.open_streams -= 1

    async def _answer(self, request: web.Request, seen: Seen, plan: Plan) -> web.StreamResponse:
        if plan.hang:
            await asyncio.Event().wait()
        if plan.status != 200:
            headers = {"Retry-After": plan.retry_after} if plan.retry_after else {}
            error = {"error": {"message": plan.message, "type": "error", "code": None}}
            return web.json_response(error, status=plan.status, headers=headers)
        dialect = _Responses if seen.path.endswith("/responses") else _Chat
        if not seen.body.get("stream"):
            return web.json_response({"usage": dialect.usage(plan)})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        speaker = dialect(response.write, str(seen.body.get("model")), plan)
        await speaker.begin()
        if seen.tool_results < len(plan.tools):
            await speaker.tool_call(seen.tool_results, *plan.tools[seen.tool_results])
        elif not await _speak(speaker, plan):
            if request.transport is not None:
                request.transport.close()  # an abort would take sent pieces back
            return response
        await response.write_eof()
        return response


async def _speak(speaker: _Chat | _Responses, plan: Plan) -> bool:
    """Send the pieces; False where the connection is to be broken off."""
    for number, piece in enumerate(plan.pieces):
        if number == plan.drop_after:
            return False
        if number == plan.stall_after:
            await asyncio.Event().wait()
        if plan.gate is not None:
            await plan.gate.acquire()
        elif number and plan.interval_s:
            await asyncio.sleep(plan.interval_s)
        await speaker.piece(piece)
    if plan.in_stream_error:
        await speaker.error(plan.in_stream_error)
    else:
        await speaker.end()
    return True


class _Chat:
    """Chat completions, streamed."""

    def __init__(self, write: Write, model: str, plan: Plan) -> None:
        self._write = write
        self._model = model
        self._plan = plan

    @staticmethod
    def usage(plan: Plan) -> dict[str, Any]:
        given, cached, made, reasoning = plan.used
        return {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    async def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:
        chunk: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        chunk["usage"] = None
        if finish or self._plan.tells_usage_always:
            chunk["usage"] = self.usage(self._plan)
        await self._write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    async def begin(self) -> None:
        await self._chunk({"role": "assistant", "content": ""})

    async def piece(self, text: str) -> None:
        await self._chunk({"content": text})

    async def tool_call(self, number: int, name: str, arguments: dict[str, Any]) -> None:
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
        await self._chunk({"tool_calls": [call]})
        await self._chunk({}, finish="tool_calls")
        await self._write(b"data: [DONE]\n\n")

    async def error(self, message: str) -> None:
        await self._write(
            b"data: " + json.dumps({"error": {"message": message}}).encode() + b"\n\n"
        )

    async def end(self) -> None:
        await self._chunk({}, finish="stop")
        await self._write(b"data: [DONE]\n\n")


class _Responses:
    """The Responses API, streamed."""

    def __init__(self, write: Write, model: str, plan: Plan) -> None:
        self._write = write
        self._plan = plan
        self._response = {"id": "resp_1", "object": "response", "created_at": 1, "model": model}
        self._text = ""

    @staticmethod
    def usage(plan: Plan) -> dict[str, Any]:
        given, cached, made, reasoning = plan.used
        return {
            "input_tokens": given,
            "output_tokens": made,
            "total_tokens": given + made,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens_details": {"reasoning_tokens": reasoning},
        }

    async def _event(self, kind: str, **rest: Any) -> None:
        data = json.dumps({"type": kind, **rest})
        await self._write(f"event: {kind}\ndata: {data}\n\n".encode())

    async def begin(self) -> None:
        await self._event(
            "response.created", response={**self._response, "status": "in_progress", "output": []}
        )

    async def _open_message(self) -> None:
        item = {"id": "msg_1", "type": "message", "role": "assistant"}
        await self._event(
            "response.output_item.added",
            output_index=0,
            item={**item, "status": "in_progress", "content": []},
        )

    async def piece(self, text: str) -> None:
        if not self._text:
            await self._open_message()
        self._text += text
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        await self._event("response.output_text.delta", **place, delta=text)

    async def tool_call(self, number: int, name: str, arguments: dict[str, Any]) -> None:
        item = {
            "id": f"fc_{number}",
            "type": "function_call",
            "call_id": f"call_{number}",
            "name": name,
        }
        await self._event(
            "response.output_item.added",
            output_index=0,
            item={**item, "arguments": "", "status": "in_progress"},
        )
        done = {**item, "arguments": json.dumps(arguments), "status": "completed"}
        await self._event(
            "response.function_call_arguments.done",
            item_id=item["id"],
            output_index=0,
            arguments=done["arguments"],
        )
        await self._event("response.output_item.done", output_index=0, item=done)
        await self._complete([done])

    async def error(self, message: str) -> None:
        await self._event("error", code="server_error", message=message, sequence_number=9)

    async def end(self) -> None:
        item = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": self._text, "annotations": []}],
        }
        if self._text:
            await self._event("response.output_item.done", output_index=0, item=item)
        await self._complete([item])

    async def _complete(self, output: list[dict[str, Any]]) -> None:
        usage = self.usage(self._plan)
        await self._event(
            "response.completed",
            response={**self._response, "status": "completed", "output": output, "usage": usage},
        )


@asynccontextmanager
async def fake_provider(
    port: int | None = None, *, host: str = "127.0.0.1"
) -> AsyncIterator[FakeProvider]:
    """Serve a provider on *port* of *host* (None: a free one) while the block runs."""
    port = port or unused_port()
    provider = FakeProvider(port)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/{dialect:.*}", provider.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    try:
        yield provider
    finally:
        await runner.cleanup()
