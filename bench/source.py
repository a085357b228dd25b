"""What streams come from: a provider, and a runner that runs nothing. Their pieces are stamped."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.streams import stamp
from bench.wire import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bench.wire import Exchange

MODEL = "openai/scripted"
_EVENT_STREAM, _NDJSON = "text/event-stream", "application/x-ndjson"


@dataclass(kw_only=True)
class Source:
    """Where it is, and what it plays to those who come by themselves.

    Attributes:
        pieces: How many each stream is told.
        interval_s: Between two of them.
    """

    port: int = 0
    pieces: int = 2
    interval_s: float = 0.0
    _runs: dict[str, _Run] = field(default_factory=dict)
    _held: Group | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """What a provider's address is given as."""
        return f"http://127.0.0.1:{self.port}/v1"

    def each(self, *, pieces: int, interval_s: float) -> None:
        """Play so to each stream that comes from now on."""
        self.pieces, self.interval_s, self._held = pieces, interval_s, None

    def hold(self, count: int) -> Group:
        """Keep the next *count* streams for whoever calls, who plays to them."""
        self._held = Group(count)
        return self._held

    def handle(self, exchange: Exchange) -> None:
        """Answer a request to either."""
        path, query = urlsplit(exchange.target)[2:4]
        if path.endswith("/chat/completions"):
            self._join(exchange, _CHAT)
        elif path.startswith("/runs/") and path.endswith("/events"):
            self._join(exchange, _EVENTS, self._runs.get(path.split("/")[2]))
        else:
            status, body = self._answer(exchange.method, path, query, exchange.body)
            exchange.answer(json.dumps(body).encode(), status=status)

    def _join(self, exchange: Exchange, language: _Language, run: _Run | None = None) -> None:
        exchange.begin(language.kind)
        exchange.send(language.hello)
        listener = _Listener(exchange, language, run)
        if self._held is not None:
            self._held.add(listener)
            if self._held.is_complete:
                self._held = None
            return
        alone = Group(1)
        alone.add(listener)
        task = asyncio.create_task(alone.play_all(self.pieces, self.interval_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(
        self, method: str, path: str, query: str, body: bytes
    ) -> tuple[str, dict[str, object]]:
        """Return what a runner that runs nothing says to the gateway's other questions."""
        match method, path:
            case "POST", "/runs":
                asked = json.loads(body)
                self._runs[asked["run_id"]] = _Run(asked["run_id"], asked["subject"])
                return "202 Accepted", {"run_id": asked["run_id"], "joined": False}
            case "GET", "/runs":
                wanted = query.removeprefix("ids=").split(",")
                known = [self._runs[run_id] for run_id in wanted if run_id in self._runs]
                return "200 OK", {"runs": [run.state() for run in known]}
            case "GET", "/models":
                return "200 OK", _MODELS
            case "GET", "/health":
                return "200 OK", _HEALTH
        return "404 Not Found", {"code": "not-found"}


@dataclass(slots=True)
class _Run:
    id: str
    subject: str
    status: str = "running"

    def state(self) -> dict[str, object]:
        return {
            "run_id": self.id,
            "subject": self.subject,
            "status": self.status,
            "phase": "model" if self.status == "running" else "ended",
            "model": MODEL,
            "created_at": "2026-01-01T00:00:00+00:00",
        }


@dataclass(slots=True)
class _Listener:
    exchange: Exchange
    language: _Language
    run: _Run | None
    pieces: int = 0

    def tell(self) -> None:
        if self.exchange.is_open:
            self.exchange.send(self.language.piece(self.pieces))
            self.pieces += 1

    def end(self) -> None:
        if self.exchange.is_open:
            self.exchange.end(self.language.goodbye(self.pieces))
        if self.run is not None:
            self.run.status = "finished"


class Group:
    """Streams that are played to together."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._listeners: list[_Listener] = []
        self._complete = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """Whether all have come."""
        return self._complete.is_set()

    async def complete(self) -> None:
        """Wait until they have."""
        await self._complete.wait()

    def add(self, listener: _Listener) -> None:
        """Take one more."""
        self._listeners.append(listener)
        if len(self._listeners) >= self._count:
            self._complete.set()

    async def play(self, pieces: int, interval_s: float) -> None:
        """Tell each stream so many pieces: in turns, spread evenly over the interval, as people's
        would be."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(pieces):
            for turn, listener in enumerate(self._listeners):
                due = began + interval_s * (number + turn / self._count)
                if (early_s := due - loop.time()) > 0:
                    await asyncio.sleep(early_s)
                listener.tell()

    def end(self) -> None:
        """Let all end well."""
        for listener in self._listeners:
            listener.end()

    async def play_all(self, pieces: int, interval_s: float) -> None:
        """Tell all there is to tell."""
        await self.play(pieces, interval_s)
        self.end()


@dataclass(frozen=True, kw_only=True)
class _Language:
    """How a stream says it."""

    kind: str
    hello: bytes
    piece: Callable[[int], bytes]
    goodbye: Callable[[int], bytes]


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


def _event(seq: int, kind: str, **fields: object) -> bytes:
    return json.dumps({"seq": seq, "type": kind, **fields}, separators=(",", ":")).encode() + b"\n"


_CHAT = _Language(
    kind=_EVENT_STREAM,
    hello=b": hello\n\n",  # a sign of life: others may have to come first
    piece=lambda _: _chunk({"role": "assistant", "content": stamp()}),
    goodbye=lambda _: _chunk({}, finish="stop") + b"data: [DONE]\n\n",
)
DONE = b"[DONE]"
"""How a provider's answer ends well."""

_EVENTS = _Language(
    kind=_NDJSON,
    hello=_event(0, "run.started", model=MODEL, session_id="s1", queued_s=0.0),
    piece=lambda number: _event(number + 1, "text.delta", text=stamp()),
    goodbye=lambda pieces: _event(
        pieces + 1, "run.finished", stop_reason="end_turn", usage={}, duration_s=0.5
    ),
)


_MODELS: dict[str, object] = {
    "models": [{"id": MODEL, "name": "Scripted", "needs_key": False}],
    "operator_key": True,
    "default_with_key": MODEL,
    "default_without_key": MODEL,
}
_HEALTH: dict[str, object] = {
    "status": "ok",
    "version": "0",
    "opencode": {"status": "ok"},
    "queue": {"slots": 1, "running": 0, "waiting": 0, "size": 1},
    "sandbox": {"backend": "none"},
}


@asynccontextmanager
async def source() -> AsyncIterator[Source]:
    """Serve one on a free port of loopback while the block runs."""
    served = Source()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(served.handle), "127.0.0.1", 0, backlog=2048)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
