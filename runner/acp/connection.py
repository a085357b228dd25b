"""JSON-RPC 2.0 over an agent's stdin and stdout, one message a line.

The Agent Client Protocol's transport (https://agentclientprotocol.com). The schema package's
own connection drops what a notification handler raises and queues without a bound; here the
reader waits for its handler, so that a slow reader of the run slows its agent and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from runner.contract.wire import LineDecoder
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import AsyncIterator, Awaitable, Callable

    OnNotification = Callable[[str, dict[str, Any]], Awaitable[None]]
    OnRequest = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CHUNK_BYTES = 1 << 16
_MAX_LINE_BYTES = 16 << 20
_ANSWERS_AT_ONCE = 16
_METHOD_NOT_FOUND = -32601
_INTERNAL_ERROR = -32603


class AgentGone(Exception):
    """The agent closed its output, or it can't be written to any more."""


class AgentRefused(Exception):
    """The agent answered a request with an error.

    Attributes:
        code: JSON-RPC error code.
        text: The agent's own words; they may quote the provider.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"agent error {code}")
        self.code = code
        self.text = text


class MethodNotFound(Exception):
    """The agent asks for something a client need not offer."""


class Writer(Protocol):
    """Where messages to the agent go; the part of `asyncio.StreamWriter` that is needed."""

    def write(self, data: bytes) -> None:
        """Take *data*."""

    async def drain(self) -> None:
        """Wait until there is room for more."""


class Connection:
    """One agent's line. Use `connect`, which also reads."""

    def __init__(self, reader: StreamReader, writer: Writer, *, on_request: OnRequest) -> None:
        self._reader = reader
        self._writer = writer
        self._on_request = on_request
        self._on_notification: OnNotification | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._gone = False
        self._answering: set[asyncio.Task[None]] = set()
        self._may_answer = asyncio.Semaphore(_ANSWERS_AT_ONCE)

    @property
    def is_open(self) -> bool:
        """Whether the agent still has its output open."""
        return not self._gone

    def listen(self, on_notification: OnNotification | None) -> None:
        """Give notifications to *on_notification* from now on; None: to nobody."""
        self._on_notification = on_notification

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its result. The caller bounds the wait.

        Raises:
            AgentGone: The agent ended before it answered.
            AgentRefused: The agent answered with an error.
        """
        if self._gone:
            raise AgentGone
        self._last_id += 1
        number = self._last_id
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"id": number, "method": method, "params": params})
            message = await answer
        finally:
            self._answers.pop(number, None)
        if (error := message.get("error")) is not None:
            raise AgentRefused(int(error.get("code", 0)), str(error.get("message", "")))
        result = message.get("result")
        return result if isinstance(result, dict) else {}

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification.

        Raises:
            AgentGone: The agent's input is closed.
        """
        await self._send({"method": method, "params": params})

    async def read(self) -> None:
        """Read until the agent closes its output; then every open request fails."""
        decoder = LineDecoder(max_line_bytes=_MAX_LINE_BYTES)
        try:
            while data := await self._reader.read(_CHUNK_BYTES):
                for line in decoder.feed(data):
                    await self._take(line)
        finally:
            self._gone = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(AgentGone())
            for task in self._answering:
                task.cancel()

    async def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            log.debug("agent_line_ignored", line_bytes=len(line))
            return
        if not isinstance(message, dict):
            return
        method, number = message.get("method"), message.get("id")
        if method is None:
            answer = self._answers.get(number) if isinstance(number, int) else None
            if answer is not None and not answer.done():
                answer.set_result(message)
        elif number is None:
            if self._on_notification is not None:
                await self._on_notification(method, message.get("params") or {})
        else:
            # An agent that asks and asks, and takes no answer, is not read any further.
            await self._may_answer.acquire()
            task = asyncio.create_task(self._answer(number, method, message.get("params") or {}))
            self._answering.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._may_answer.release()

    async def _answer(self, number: int | str, method: str, params: dict[str, Any]) -> None:
        reply: dict[str, Any]
        try:
            reply = {"result": await self._on_request(method, params)}
        except MethodNotFound:
            reply = {"error": {"code": _METHOD_NOT_FOUND, "message": "not offered"}}
        except Exception as exc:
            log.exception("agent_request_failed", method=method, error=type(exc).__name__)
            reply = {"error": {"code": _INTERNAL_ERROR, "message": "the client failed"}}
        with suppress(AgentGone):
            await self._send({"id": number, **reply})

    async def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode() + b"\n"
        try:
            self._writer.write(line)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as exc:
            raise AgentGone from exc


@asynccontextmanager
async def connect(
    reader: StreamReader, writer: Writer, *, on_request: OnRequest
) -> AsyncIterator[Connection]:
    """Yield a connection that is read from while the block runs."""
    connection = Connection(reader, writer, on_request=on_request)
    reading = asyncio.create_task(connection.read())
    try:
        yield connection
    finally:
        await finish(_stop(reading))


async def _stop(reading: asyncio.Task[None]) -> None:
    reading.cancel()
    await asyncio.wait({reading})
    if not reading.cancelled() and (failure := reading.exception()) is not None:
        log.warning("agent_reader_failed", error=type(failure).__name__)
