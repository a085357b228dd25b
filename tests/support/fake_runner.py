"""A runner that plays a script: a real server that speaks the runner's HTTP, and runs nothing.

As in the real one a run is a task of the server with a log of its own; readers come and go.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runner.contract import headers
from runner.contract.events import Usage
from runner.contract.problems import AlreadyResolved, IdempotencyConflict, NotFound, ServiceError
from runner.contract.requests import (
    ModelInfo,
    ModelList,
    OpenCodeHealth,
    Phase,
    PoolHealth,
    QueueHealth,
    RunnerHealth,
    RunState,
    SandboxHealth,
    Status,
)
from runner.contract.version import CONTRACT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    Script = Callable[["Stage"], Awaitable[None]]

TOKEN = "the-runner-token"
STARTED: dict[str, Any] = {
    "type": "run.started",
    "model": "demo/tools",
    "session_id": "s1",
    "queued_s": 0.0,
}
FINISHED: dict[str, Any] = {"type": "run.finished", "stop_reason": "end_turn", "duration_s": 0.5}
TERMINAL: dict[str, Status] = {
    "run.finished": "finished",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
}


def text(piece: str) -> dict[str, Any]:
    """Return an event with a piece of the answer."""
    return {"type": "text.delta", "text": piece}


class Stage:
    """What a script plays on: one run.

    Attributes:
        id: Of the run.
        body: What it was asked for with.
        lines: Its log.
    """

    def __init__(self, runner: FakeRunner, body: dict[str, Any]) -> None:
        self.id = str(body["run_id"])
        self.body = body
        self.lines: list[bytes] = []
        self.seqs: list[int] = []
        self.last: dict[str, Any] = {}
        self.answers: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._runner = runner
        self._changed = asyncio.Event()
        self._readers: list[tuple[web.Request, web.StreamResponse]] = []
        self._questions: dict[str, bool] = {}
        self._task: asyncio.Task[None] | None = None
        self._created = datetime.now(UTC)

    @property
    def log(self) -> bytes:
        """All of it, as a reader from the start gets it."""
        return b"".join(self.lines)

    @property
    def has_ended(self) -> bool:
        return self.last.get("type") in TERMINAL

    def play(self, script: Script) -> None:
        self._task = asyncio.create_task(self._play(script))

    async def _play(self, script: Script) -> None:
        try:
            await script(self)
        finally:
            self._wake()

    async def send(self, *events: dict[str, Any]) -> None:
        """Add *events* to the log at once, numbered."""
        for event in events:
            if self.has_ended:
                break
            if event["type"] == "permission.requested":
                self._questions[event["id"]] = True
            self.seqs.append(event.get("to", self.seqs[-1] + 1 if self.seqs else 0))
            body = json.dumps({"seq": self.seqs[-1], **event}, ensure_ascii=False)
            self.lines.append(body.encode() + b"\n")
            self.last = event
        self._wake()
        await asyncio.sleep(0)

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes to those who read right now."""
        for _, response in self._readers:
            await response.write(data)

    def drop(self) -> None:
        """Break the readers' connections, as a runner that dies."""
        for request, _ in self._readers:
            if request.transport is not None:
                request.transport.abort()

    async def until_read(self) -> None:
        """Wait until somebody reads."""
        async with asyncio.timeout(20):
            while not self._readers:
                await asyncio.sleep(0.005)

    async def end(self, event: dict[str, Any]) -> None:
        """End the run from outside its script."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.send(event)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def state(self) -> RunState:
        first = json.loads(self.lines[0]) if self.lines else {}
        status = TERMINAL.get(self.last.get("type", ""), "running")
        phase: Phase = "ended" if self.has_ended else "model"
        if self.last.get("type") == "permission.requested":
            phase = "person"
        ended = datetime.now(UTC) if self.has_ended else None
        return RunState(
            run_id=self.id,
            subject=self.body["subject"],
            status=status,
            phase=phase,
            model=self.body.get("model") or first.get("model") or "demo/tools",
            created_at=self._created.isoformat(),
            started_at=self._created.isoformat(),
            ended_at=ended.isoformat() if ended else None,
            queued_s=0.25,
            duration_s=self.last.get("duration_s", 1.5) if ended else None,
            last_seq=self.seqs[-1] if self.seqs else None,
            usage=Usage.model_validate(self.last.get("usage", {})) if ended else None,
            error_code=self.last.get("code"),
            cancelled_by=self.last.get("by") if ended else None,
        )

    async def write_to(self, request: web.Request, after: int) -> web.StreamResponse:
        """Let one reader read, until the end of the run or the runner's next cut."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        reader = (request, response)
        self._readers.append(reader)
        next_line = bisect_right(self.seqs, after)
        try:
            while True:
                changed = self._changed
                data = b"".join(self.lines[next_line:])
                next_line = len(self.lines)
                cut = self._runner.cut_after(data)
                if cut is not None:
                    await response.write(data[:cut])
                    if request.transport is not None:
                        request.transport.abort()
                    return response
                if data:
                    await response.write(data)
                if self.has_ended or (self._task is not None and self._task.done()):
                    return response
                with suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await changed.wait()
                        continue
                await response.write(b"\n")
        except (asyncio.CancelledError, ConnectionError):
            if not self.has_ended:
                self._runner.left.set()
            raise
        finally:
            self._readers.remove(reader)

    def resolve(self, permission_id: str, option: str) -> None:
        if permission_id not in self._questions:
            raise NotFound
        if not self._questions[permission_id]:
            raise AlreadyResolved
        self._questions[permission_id] = False
        self.answers.put_nowait((permission_id, option))


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
        runs: The runs there are.
        left: Set when a reader hung up on a run that had not ended.
        contract: Which release of the contract it says that it speaks.
        cut_after: After how many of the bytes about to be written to a reader its connection
            breaks; None: not now.
    """

    url: str = ""
    script: Script = field(default_factory=lambda: playing(STARTED, text("Hallo"), FINISHED))
    refusal: ServiceError | None = None
    token: str = TOKEN
    contract: int = CONTRACT
    operator_key: bool = False
    opencode: OpenCodeHealth = field(
        default_factory=lambda: OpenCodeHealth(status="ok", version="1.2.3")
    )
    started: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    runs: dict[str, Stage] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    cut_after: Callable[[bytes], int | None] = lambda _data: None

    async def start_run(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.started.append(body)
        self.headers.append(dict(request.headers))
        if self.refusal is not None:
            raise self.refusal
        joined = self._joined(body)
        if joined is None and body.get("come_back"):
            raise NotFound
        if joined is None:
            stage = self.runs[body["run_id"]] = Stage(self, body)
            stage.play(self.script)
        run_id = joined or body["run_id"]
        return web.json_response({"run_id": run_id, "joined": joined is not None}, status=202)

    def _joined(self, body: dict[str, Any]) -> str | None:
        wanted = json.dumps([body["prompt"], body.get("model"), body.get("permission")])
        if key := body.get("idempotency_key"):
            known = self.keys.setdefault((body["subject"], key), (body["run_id"], wanted))
            if known[1] != wanted:
                raise IdempotencyConflict
            return known[0] if known[0] != body["run_id"] else None
        for stage in self.runs.values():
            same = all(
                stage.body.get(name) == body.get(name) for name in ("subject", "prompt", "model")
            )
            age_s = (datetime.now(UTC) - stage._created).total_seconds()
            is_double = not stage.has_ended and age_s < (body.get("join_within_s") or 0)
            if same and (is_double or body.get("come_back")):
                return stage.id
        return None

    def run_of(self, request: web.Request) -> Stage:
        stage = self.runs.get(request.match_info["id"])
        if stage is None or stage.body["subject"] != request.headers.get("X-Subject"):
            raise NotFound
        return stage

    async def events(self, request: web.Request) -> web.StreamResponse:
        return await self.run_of(request).write_to(request, int(request.query.get("after", "-1")))

    async def state(self, request: web.Request) -> web.Response:
        return web.json_response(self.run_of(request).state().model_dump())

    async def states(self, request: web.Request) -> web.Response:
        wanted: Iterable[str] = request.query["ids"].split(",")
        found = [self.runs[run_id].state().model_dump() for run_id in wanted if run_id in self.runs]
        return web.json_response({"runs": found})

    async def cancel(self, request: web.Request) -> web.Response:
        stage = self.run_of(request)
        if not stage.has_ended:
            await stage.end({"type": "run.cancelled", "by": "user"})
        return web.json_response(stage.state().model_dump(), status=202)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.run_of(request).resolve(request.match_info["pid"], body["option"])
        return web.Response(status=204)

    async def health(self, _: web.Request) -> web.Response:
        health = RunnerHealth(
            status=self.opencode.status,
            version="0.1.0",
            opencode=self.opencode,
            queue=QueueHealth(slots=10, running=1, waiting=0, size=100),
            sandbox=SandboxHealth(backend="process"),
            pool=PoolHealth(size=2, idle=1, booting=1),
        )
        status = 200 if health.status == "ok" else 503
        return web.json_response(health.model_dump(), status=status)

    async def models(self, _: web.Request) -> web.Response:
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

    async def tell_contract(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers[headers.CONTRACT] = str(self.contract)

    @web.middleware
    async def as_the_runner_answers(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        trusted = request.headers.get("Authorization") == f"Bearer {self.token}"
        if request.path != "/health" and not trusted:
            return web.json_response({"code": "token-invalid"}, status=401)
        try:
            return await handler(request)
        except ServiceError as exc:
            return _problem(exc)


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
    app = web.Application(middlewares=[runner.as_the_runner_answers])
    app.on_response_prepare.append(runner.tell_contract)
    app.add_routes(
        [
            web.post("/runs", runner.start_run),
            web.get("/runs", runner.states),
            web.get("/runs/{id}", runner.state),
            web.delete("/runs/{id}", runner.cancel),
            web.get("/runs/{id}/events", runner.events),
            web.post("/runs/{id}/permissions/{pid}", runner.answer),
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
        for stage in runner.runs.values():
            await stage.end({"type": "run.cancelled", "by": "shutdown"})
