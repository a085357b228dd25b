"""Agents in OpenCode's place: hundreds, in one light process, each speaking real ACP on its pipes.

What the runner starts as OpenCode is a few lines of Python that hand their stdin and stdout to
that process and then sleep: so two hundred agents cost hardly more than what they say. They ask
the model at the door they were given, and tell each piece as it comes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import uvloop

from bench.wire import Answer, AnswerBroken, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_SHIM = """#!{python} -IS
import os, socket
with socket.socket(socket.AF_UNIX) as hub:
    hub.connect({path!r})
    told = os.environ["OPENCODE_CONFIG_CONTENT"] + "\\0" + os.environ["RUN_TOKEN"]
    socket.send_fds(hub, [told.encode()], [0, 1])
    os.close(0)
    os.close(1)
    hub.recv(1)  # the other process hangs up when stdin has ended
"""
_MAX_TOLD_BYTES = 1 << 20
_ROOT = Path(__file__).parents[1]


@asynccontextmanager
async def light_agents(directory: Path) -> AsyncIterator[Path]:
    """Yield a program for `OPENCODE_BIN`; its agents live while the block runs."""
    path = directory / "agents.sock"
    program = directory / "light-agent"
    program.write_text(_SHIM.format(python=sys.executable, path=str(path)), encoding="utf-8")
    program.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    command = (sys.executable, "-m", __name__, str(path))
    process = await asyncio.create_subprocess_exec(*command, cwd=_ROOT, stdin=PIPE, stdout=PIPE)
    try:
        if process.stdout is None or not await process.stdout.readline():
            raise RuntimeError("the agents did not start")
        yield program
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Agent(asyncio.Protocol):
    """One agent, reading its stdin."""

    def __init__(self, told: str, say: Callable[[bytes], None], leave: Callable[[], None]) -> None:
        config, _, self._token = told.partition("\0")
        self._config = json.loads(config)
        self._say = say
        self._leave = leave
        self._held = b""
        self._models: dict[str, str] = {}
        self._calls: set[_Call] = set()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`: one message a line."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "id" in message and "method" in message:
                self._take(message["id"], message["method"], message.get("params", {}))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`: end, as OpenCode does."""
        del exc
        for call in self._calls:
            call.leave()
        self._leave()

    def _take(self, number: int, method: str, params: dict[str, Any]) -> None:
        result: dict[str, object] = {}
        if method == "initialize":
            result = {"protocolVersion": 1, "agentCapabilities": {}}
        elif method == "session/new":
            session = f"ses_{len(self._models)}"
            self._models[session] = self._config["model"]
            result = {"sessionId": session}
        elif method == "session/set_config_option" and params["configId"] == "model":
            self._models[params["sessionId"]] = params["value"]
        elif method == "session/prompt":
            self._prompt(number, params)
            return
        self._tell({"id": number, "result": result})

    def _prompt(self, number: int, params: dict[str, Any]) -> None:
        session = params["sessionId"]
        provider, _, model = self._models[session].partition("/")
        url = urlsplit(self._config["provider"][provider]["options"]["baseURL"])
        text = "".join(block["text"] for block in params["prompt"])
        said = [{"role": "user", "content": text}]
        body = json.dumps({"model": model, "stream": True, "messages": said}).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}

        def piece(text: str) -> None:
            content = {"type": "text", "text": text}
            update = {"sessionUpdate": "agent_message_chunk", "content": content}
            told = {"sessionId": session, "update": update}
            self._tell({"method": "session/update", "params": told})

        def end(failure: str) -> None:
            self._calls.discard(call)
            if failure:
                self._tell({"id": number, "error": {"code": -32603, "message": failure}})
            else:
                usage = {"inputTokens": 7, "outputTokens": 11}
                result = {"stopReason": "end_turn", "usage": usage}
                self._tell({"id": number, "result": result})

        asked = request("POST", f"{url.path}/chat/completions", headers, body)
        call = _Call(asked, piece=piece, end=end)
        self._calls.add(call)
        call.start(url.hostname or "", url.port or 80)

    def _tell(self, message: dict[str, object]) -> None:
        self._say(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


class _Call(asyncio.Protocol):
    """One model call through the door."""

    def __init__(
        self, asked: bytes, *, piece: Callable[[str], None], end: Callable[[str], None]
    ) -> None:
        self._asked = asked
        self._piece = piece
        self._end: Callable[[str], None] | None = end
        self._answer = Answer()
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[object] | None = None

    def start(self, host: str, port: int) -> None:
        """Connect, ask, read."""
        loop = asyncio.get_running_loop()
        self._connecting = loop.create_task(loop.create_connection(lambda: self, host, port))

    def leave(self) -> None:
        """Hang up, and tell nobody."""
        self._end = None
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]
        transport.write(self._asked)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`: tell each piece."""
        try:
            *lines, self._held = (self._held + self._answer.feed(data)).split(b"\n")
        except AnswerBroken as exc:
            self._close(str(exc))
            return
        for line in lines:
            if line.startswith(b"data: {"):
                choice = json.loads(line[6:])["choices"][0]
                if text := choice["delta"].get("content"):
                    self._piece(text)
        if self._answer.ended:
            self._close("")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._close(f"the door closed ({exc})")

    def _close(self, failure: str) -> None:
        end = self._end
        self.leave()
        if end is not None:
            end(failure)


class _Hub:
    """Takes the agents' pipes."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()

    def accept(self) -> None:
        """Take a shim's connection, and what it hands over."""
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            self._loop.add_reader(connection.fileno(), self._take, connection)

    def _take(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection.fileno())
        told, fds, _, _ = socket.recv_fds(connection, _MAX_TOLD_BYTES, 2)
        if len(fds) < 2:
            connection.close()
            return
        task = self._loop.create_task(self._start(connection, told.decode(), *fds))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, shim: socket.socket, told: str, stdin: int, stdout: int) -> None:
        writer, _ = await self._loop.connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(stdout, "wb", buffering=0)
        )
        reader: asyncio.ReadTransport | None = None

        def leave() -> None:
            self._loop.remove_reader(shim.fileno())
            shim.close()
            writer.close()

        def killed() -> None:
            if reader is not None:
                reader.close()

        self._loop.add_reader(shim.fileno(), killed)
        reader, _ = await self._loop.connect_read_pipe(
            lambda: _Agent(told, writer.write, leave), os.fdopen(stdin, "rb", buffering=0)
        )


async def _serve(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        Path(path).chmod(0o666)  # the agents may be another user's
        listener.listen(1024)
        listener.setblocking(False)  # noqa: FBT003
        loop = asyncio.get_running_loop()
        loop.add_reader(listener.fileno(), _Hub(listener).accept)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await loop.run_in_executor(None, sys.stdin.read)  # ends with its parent


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
