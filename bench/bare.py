"""OpenCode without us: the baselines."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.source import MODEL
from runner.acp.connection import MethodNotFound, connect
from runner.agents import opencode
from runner.agents.directories import RunDirectories
from runner.agents.opencode import AgentModel
from runner.sandbox.base import Inside

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from bench.source import Source
    from runner.acp.connection import Connection

_PROMPT = "Hi"


@asynccontextmanager
async def _opencode(provider: Source, *arguments: str) -> AsyncIterator[Process]:
    model = AgentModel(provider="openai", name=MODEL.partition("/")[2], api="chat")
    with tempfile.TemporaryDirectory() as parent:
        async with RunDirectories(Path(parent), prefix="bare-").new() as directory:
            inside = Inside(
                home=directory / "home",
                workspace=directory / "workspace",
                tmp=directory / "tmp",
                door_url=provider.base_url.removesuffix("/v1"),
            )
            environment = opencode.environment(
                inside, [model], token="t", server_password="p", base_path="/v1"
            )
            process = await asyncio.create_subprocess_exec(
                str(opencode.find_binary(None)),
                *arguments,
                cwd=inside.workspace,
                env={"PATH": os.environ["PATH"], **environment},
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
            )
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()


async def cold_run(provider: Source) -> float:
    """Return the seconds from starting `opencode run` to its first words."""
    began = time.monotonic()
    async with _opencode(provider, "run", _PROMPT) as process, asyncio.timeout(120):
        stdin, stdout = pipes(process)
        stdin.close()
        answer = b""
        while b";" not in answer:
            data = await stdout.read(4096)
            if not data:
                raise RuntimeError("opencode run ended without an answer")
            answer += data
        return time.monotonic() - began


class WarmAcp:
    """A warm `opencode acp`, driven by hand."""

    def __init__(self, connection: Connection, process: Process, *, cwd: str) -> None:
        self._connection = connection
        self._cwd = cwd
        self.pid = process.pid

    async def first_text_s(self) -> tuple[float, float]:
        """Return the seconds to the first text: from the prompt, and from `session/new`."""
        first = asyncio.get_running_loop().create_future()

        async def on_notification(_: str, params: dict[str, Any]) -> None:
            update = params.get("update", {})
            if update.get("sessionUpdate") == "agent_message_chunk" and not first.done():
                first.set_result(time.monotonic())

        self._connection.listen(on_notification)
        began = time.monotonic()
        new = await self._connection.request("session/new", {"cwd": self._cwd, "mcpServers": []})
        prompted = time.monotonic()
        words = [{"type": "text", "text": _PROMPT}]
        prompt = {"sessionId": new["sessionId"], "prompt": words}
        await self._connection.request("session/prompt", prompt)
        return first.result() - prompted, first.result() - began


@asynccontextmanager
async def warm_acp(provider: Source) -> AsyncIterator[WarmAcp]:
    """Yield one that has answered its first prompt."""

    async def refuse(_: str, __: dict[str, Any]) -> dict[str, Any]:
        raise MethodNotFound

    async with _opencode(provider, "acp") as process, asyncio.timeout(600):
        stdin, stdout = pipes(process)
        async with connect(stdout, stdin, on_request=refuse) as connection:
            hello = {"protocolVersion": 1, "clientCapabilities": {}}
            await connection.request("initialize", hello)
            cwd = str(Path(f"/proc/{process.pid}/cwd").readlink())
            warm = WarmAcp(connection, process, cwd=cwd)
            await warm.first_text_s()
            yield warm


def pipes(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    """Return stdin and stdout."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    return process.stdin, process.stdout
