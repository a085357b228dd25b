"""Everything, as `make run` starts it: gateway, PocketBase, runner, and a signed-in caller."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector
from aiohttp.test_utils import unused_port

from bench.provider import MODEL
from runner.contract.wire import LineDecoder
from tests.support.processes import descendants
from tests.support.stack import StackProcess, start_stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.provider import StampingProvider

_FULL_WITHIN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """A stack that is up."""

    stack: StackProcess
    http: ClientSession
    runner_url: str

    async def events(self, prompt: str = "Hi") -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a run, as they come through the gateway."""
        decoder = LineDecoder()
        async with self.http.post("/opencode/stream", json={"prompt": prompt}) as response:
            if response.status != 200:
                raise RuntimeError(await response.text())
            async for data in response.content.iter_any():
                for line in decoder.feed(data):
                    yield json.loads(line)

    async def first_text_s(self) -> float:
        """Return the seconds from the request to the first text; wait for the end."""
        began, first = time.monotonic(), None
        last: dict[str, Any] = {}
        async for last in self.events():
            if last["type"] == "text.delta" and first is None:
                first = time.monotonic() - began
        if first is None:
            raise RuntimeError(f"no text came: {last}")
        return first

    async def until_cancelled(self) -> None:
        """Read a run's events for as long as they come."""
        async for _ in self.events():
            pass

    async def until_warm(self) -> None:
        """Wait until the pool is full."""
        async with asyncio.timeout(_FULL_WITHIN_S):
            while True:
                async with self.http.get(f"{self.runner_url}/health") as response:
                    pool = (await response.json())["pool"]
                if pool["idle"] == pool["size"]:
                    return
                await asyncio.sleep(0.1)

    def sandboxed(self) -> list[int]:
        """Return the processes of OpenCodes in sandboxes."""
        binary = "opencode acp"
        return [pid for pid in descendants(self.stack.process.pid) if binary in _command(pid)]


@asynccontextmanager
async def service(provider: StampingProvider, **settings: str) -> AsyncIterator[Service]:
    """Start the stack with *settings*; end it afterwards."""
    port = unused_port()
    usual = {
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API": "chat",
        "MODELS": MODEL,
        "DEMO": "off",
        "PORT": str(port),
        "GATEWAY_RUNS_PER_USER": "1000",
        "RUNNER_QUEUE_SIZE": "1000",
        "LOG_LEVEL": "warning",
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        start_stack(Path(directory) / "data", **(usual | settings)) as stack,
    ):
        await asyncio.to_thread(stack.wait_until_up)
        token = next(word for word in stack.curl if word.startswith("Authorization: "))
        headers = {
            "Authorization": token.partition(": ")[2],
            "Accept": "application/x-ndjson",
        }
        async with ClientSession(
            stack.origin,
            headers=headers,
            timeout=ClientTimeout(total=600),
            connector=TCPConnector(limit=0),
        ) as http:
            yield Service(stack=stack, http=http, runner_url=f"http://127.0.0.1:{port}")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
