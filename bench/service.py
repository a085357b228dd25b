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
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout, TCPConnector
from aiohttp.test_utils import unused_port

from bench import wire
from bench.source import MODEL
from bench.streams import STAMP, reading
from runner.contract.wire import LineDecoder
from tests.support.processes import descendants
from tests.support.stack import COMMAND, StackProcess, start_stack

if TYPE_CHECKING:
    import re
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from bench.source import Source
    from bench.streams import Streams

LIGHT = {"RUNNER_SANDBOX": "process", "RUNNER_WARM_POOL": "0"}
"""Settings for light agents, besides their `OPENCODE_BIN`."""

_STREAM = "/opencode/stream"
_PATIENCE_S = 240.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Service:
    """A stack that is up.

    Attributes:
        headers: What the caller shows.
    """

    stack: StackProcess
    http: ClientSession
    headers: dict[str, str]
    runner_url: str

    async def events(self, prompt: str = "Hi") -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a run, as they come through the gateway."""
        decoder = LineDecoder()
        async with self.http.post(_STREAM, json={"prompt": prompt}) as response:
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

    def streams(
        self, count: int, *, pattern: re.Pattern[bytes] = STAMP
    ) -> AbstractAsyncContextManager[Streams]:
        """Read *count* runs at once while the block runs; those that go on then are cancelled."""
        url = urlsplit(self.stack.origin)
        body = json.dumps({"prompt": "Hi"}).encode()
        headers = self.headers | {"Content-Type": "application/json"}
        asked = wire.request("POST", _STREAM, headers, body)
        return reading(url.hostname or "", url.port or 80, [asked] * count, pattern=pattern)

    async def until_warm(self) -> None:
        """Wait until the pool is full."""
        await self._until(lambda health: health["pool"]["idle"] == health["pool"]["size"])

    async def until_idle(self) -> None:
        """Wait until no run is left."""
        await self._until(
            lambda health: health["queue"]["running"] + health["queue"]["waiting"] == 0
        )

    async def _until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition(health := await self._health()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"after {_PATIENCE_S:.0f} s the runner still is {health}")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _health(self) -> dict[str, Any]:
        async with self.http.get(f"{self.runner_url}/health") as response:
            health: dict[str, Any] = await response.json()
            return health

    def sandboxed(self) -> list[int]:
        """Return the processes of OpenCodes in sandboxes."""
        return self._below("opencode acp")

    def part(self, name: str) -> list[int]:
        """Return the processes of a part: `gateway` or `runner`."""
        return self._below(f"-m {name}")

    def _below(self, words: str) -> list[int]:
        return [pid for pid in descendants(self.stack.process.pid) if words in _command(pid)]


@asynccontextmanager
async def service(provider: Source, **settings: str) -> AsyncIterator[Service]:
    """Start the stack with *settings*; end it afterwards."""
    port = unused_port()
    usual = {
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API": "chat",
        "MODELS": MODEL,
        "DEMO": "off",
        "PORT": str(port),
        "GATEWAY_RUNS_PER_USER": "10000",
        "GATEWAY_DEBOUNCE_S": "0",  # all are of one user, who means each of them
        "RUNNER_QUEUE_SIZE": "10000",
        "LOG_LEVEL": "warning",
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        start_stack(
            Path(directory) / "data", command=(*COMMAND, "--end-with-parent"), **(usual | settings)
        ) as stack,
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
            runner_url = f"http://127.0.0.1:{port}"
            yield Service(stack=stack, http=http, headers=headers, runner_url=runner_url)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
