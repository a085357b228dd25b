"""A runner that plays a script: a real server that speaks the runner's HTTP, and runs nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runner.contract.requests import (
    ModelInfo,
    ModelList,
    OpenCodeHealth,
    QueueHealth,
    RunnerHealth,
    SandboxHealth,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from runner.contract.problems import ServiceError

    Script = Callable[["Stage"], Awaitable[None]]

TOKEN = "the-runner-token"
STARTED: dict[str, Any] = {
    "type": "run.started",
    "model": "demo/tools",
    "session_id": "s1",
    "queued_s": 0.0,
}
FINISHED: dict[str, Any] = {"type": "run.finished", "stop_reason": "end_turn", "duration_s": 0.5}


def text(piece: str) -> dict[str, Any]:
    """Return an event with a piece of the answer."""
    return {"type": "text.delta", "text": piece}


class Stage:
    """What a script plays on: one run's response."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response
        self._seq = 0

    async def send(self, *events: dict[str, Any]) -> None:
        """Send *events* at once, numbered."""
        lines = []
        for event in events:
            body = json.dumps({"seq": self._seq, **event}, ensure_ascii=False)
            lines.append(body.encode() + b"\n")
            self._seq += 1
        await self.send_raw(b"".join(lines))

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes."""
        await self._response.write(data)

    def drop(self) -> None:
        """Break the connection, as a runner that dies."""
        assert self._request.transport is not None
        self._request.transport.abort()


def playing(*events: dict[str, Any]) -> Script:
    """Return a script that sends *events* and ends."""

    async def script(stage: Stage) -> None:
        await stage.send(*events)

    return script


@dataclass
class FakeRunner:
    """The runner, scripted.

    Attributes:
        script: What each run plays.
        refusal: What runs are refused with, instead.
        started: Bodies of the runs that were asked for.
        headers: Their headers.
        left: Set when a caller hung up on a run that had not ended.
    """

    url: str = ""
    script: Script = field(default_factory=lambda: playing(STARTED, text("Hallo"), FINISHED))
    refusal: ServiceError | None = None
    token: str = TOKEN
    operator_key: bool = False
    opencode: OpenCodeHealth = field(
        default_factory=lambda: OpenCodeHealth(status="ok", version="1.2.3")
    )
    started: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def start_run(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"code": "token-invalid"}, status=401)
        self.started.append(await request.json())
        self.headers.append(dict(request.headers))
        if self.refusal is not None:
            return _problem(self.refusal)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            await self.script(Stage(request, response))
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response

    async def health(self, _: web.Request) -> web.Response:
        health = RunnerHealth(
            status=self.opencode.status,
            version="0.1.0",
            opencode=self.opencode,
            queue=QueueHealth(slots=10, running=1, waiting=0, size=100),
            sandbox=SandboxHealth(backend="process"),
        )
        status = 200 if health.status == "ok" else 503
        return web.json_response(health.model_dump(), status=status)

    async def models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"code": "token-invalid"}, status=401)
        models = ModelList(
            models=[
                ModelInfo(id="openai/gpt-5", name="GPT-5", needs_key=True),
                ModelInfo(id="demo/tools", name="Demo", needs_key=False, note="a script"),
            ],
            operator_key=self.operator_key,
            default_with_key="openai/gpt-5",
            default_without_key="demo/tools",
        )
        return web.json_response(models.model_dump())


def _problem(refusal: ServiceError) -> web.Response:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(int(refusal.retry_after_s))
    return web.json_response(
        refusal.to_problem("en", "x"),
        status=refusal.status,
        headers=headers,
        content_type="application/problem+json",
    )


@asynccontextmanager
async def run_fake_runner(*, port: int = 0) -> AsyncIterator[FakeRunner]:
    """Run a scripted runner while the block runs."""
    runner = FakeRunner()
    app = web.Application()
    app.add_routes(
        [
            web.post("/runs", runner.start_run),
            web.get("/health", runner.health),
            web.get("/models", runner.models),
        ]
    )
    server = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await server.setup()
    try:
        site = web.TCPSite(server, "127.0.0.1", port)
        await site.start()
        runner.url = f"http://127.0.0.1:{server.addresses[0][1]}"
        yield runner
    finally:
        await server.cleanup()
