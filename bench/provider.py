"""A provider whose pieces say when they were sent, in this process's monotonic nanoseconds."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.test_utils import unused_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "openai/scripted"
SEPARATOR = ";"


@dataclass(kw_only=True)
class StampingProvider:
    """Its address, and how it answers: so many pieces, so far apart.

    Attributes:
        together: So many streams have to be open before one begins; then they begin one by one,
            spread over an interval, as people do. None ends before all have sent their pieces.
    """

    base_url: str
    pieces: int = 2
    interval_s: float = 0.0
    together: int = 1
    _open: int = 0
    _sent: int = 0
    _all_open: asyncio.Event = field(default_factory=asyncio.Event)
    _all_sent: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, streams: int) -> None:
        """Let the next so many streams begin together."""
        self.together, self._open, self._sent = streams, 0, 0
        self._all_open.clear()
        self._all_sent.clear()

    async def all_open(self) -> None:
        """Wait until they are."""
        await self._all_open.wait()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat completion."""
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        turn = self._open
        self._open += 1
        if self._open >= self.together:
            self._all_open.set()
        await self._all_open.wait()
        await asyncio.sleep(self.interval_s * (turn % self.together) / self.together)
        for number in range(self.pieces):
            if number and self.interval_s:
                await asyncio.sleep(self.interval_s)
            stamp = f"{time.monotonic_ns()}{SEPARATOR}"
            await response.write(_chunk({"role": "assistant", "content": stamp}))
        self._sent += 1
        if self._sent >= self.together:
            self._all_sent.set()
        await self._all_sent.wait()
        await response.write(_chunk({}, finish="stop") + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if finish:
        chunk["usage"] = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@asynccontextmanager
async def stamping_provider() -> AsyncIterator[StampingProvider]:
    """Serve one on a free port of loopback while the block runs."""
    port = unused_port()
    provider = StampingProvider(base_url=f"http://127.0.0.1:{port}/v1")
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", provider.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield provider
    finally:
        await runner.cleanup()
