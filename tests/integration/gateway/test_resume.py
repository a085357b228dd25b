"""Nothing is lost and nothing comes twice, wherever connections and processes break."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aiohttp import ClientError, ClientSession, ClientTimeout

from tests.support.fake_runner import FINISHED, STARTED, text
from tests.support.gateway import gateway_settings, run_gateway
from tests.support.gateway_process import environment, started, until_up
from tests.support.pocketbase import free_port
from tests.support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner, Script, Stage
    from tests.support.pocketbase import RunningPocketBase, User

RUNS = "/opencode/runs"
NDJSON, SSE = "application/x-ndjson", "text/event-stream"
PIECES = ["Grüße ", "🙂", "\n\n", 'data: "x"', "a" * 3000, " – naïve", "\r", "id: 7\n"]


class SseReader:
    """A reader of server-sent events that comes back, as a browser's EventSource does."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bytes]] = []
        self.connections = 0

    @property
    def last_id(self) -> str:
        return str(self.events[-1][0]) if self.events else ""

    @property
    def log(self) -> bytes:
        return b"".join(data + b"\n" for _, data in self.events)

    def take(self, block: bytes) -> str:
        """Keep an event; return its type."""
        fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
        if b"data" not in fields:
            return ""
        if b"id" in fields:
            self.events.append((int(fields[b"id"]), fields[b"data"]))
        return fields[b"event"].decode()

    async def read(self, http: ClientSession, url: str, cut_after: int) -> bool:
        """Read until the end, or hang up after so many bytes; return whether it was the end."""
        headers = {"Accept": SSE, **({"Last-Event-ID": self.last_id} if self.events else {})}
        self.connections += 1
        buffer, size = b"", 0
        async with http.get(url, headers=headers) as response:
            if response.status == 204:
                return True
            assert response.status in {200, 503}, response.status
            async for chunk in response.content.iter_any():
                size += len(chunk)
                buffer += chunk
                *blocks, buffer = buffer.split(b"\n\n")
                for block in blocks:
                    if self.take(block) in {"run.finished", "run.cancelled"}:
                        return True
                if size > cut_after:
                    response.close()
        return False

    async def read_all(
        self, http: ClientSession, url: Callable[[], str], rng: random.Random
    ) -> None:
        """Come back until the end is read."""
        async with asyncio.timeout(100):
            while True:
                try:
                    if await self.read(http, url(), rng.randrange(100, 9000)):
                        return
                except (ClientError, OSError):
                    await asyncio.sleep(0.02)


def cutting(rng: random.Random) -> Callable[[bytes], int | None]:
    def cut(data: bytes) -> int | None:
        return rng.randrange(len(data)) if data and rng.random() < 0.1 else None

    return cut


def talking(rng: random.Random) -> Script:
    async def script(stage: Stage) -> None:
        await stage.send(STARTED)
        for _ in range(rng.randrange(5, 30)):
            await stage.send(*(text(rng.choice(PIECES)) for _ in range(rng.randrange(1, 4))))
            await asyncio.sleep(rng.random() * 0.02)
        await stage.send(FINISHED)

    return script


async def test_200_runs_read_across_cuts_are_the_log_byte_for_byte(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """Readers hang up, the runner's connections break inside events, a gateway goes and comes."""
    rng = random.Random(5)
    runner.script, runner.cut_after = talking(rng), cutting(rng)
    settings = [gateway_settings(pocketbase, runner_url=runner.url) for _ in range(2)]
    readers: dict[str, SseReader] = {}
    async with AsyncExitStack() as stack:
        steady = await stack.enter_async_context(run_gateway(settings[0]))
        urls = [steady.url]

        async def come_and_go() -> None:
            while True:
                async with run_gateway(settings[1]) as gateway:
                    urls.append(gateway.url)
                    await asyncio.sleep(0.5)
                    urls.remove(gateway.url)
                await asyncio.sleep(0.1)

        headers = {"Authorization": alice.token}
        timeout = ClientTimeout(total=None, sock_read=20)
        http = await stack.enter_async_context(ClientSession(headers=headers, timeout=timeout))
        restless = asyncio.create_task(come_and_go())
        tasks = []
        for number in range(200):
            async with steady.request(
                "POST", RUNS, user=alice, json={"prompt": f"Nummer {number}"}
            ) as response:
                run_id = (await response.json())["id"]
            reader = readers[run_id] = SseReader()

            def somewhere(run_id: str = run_id) -> str:
                return f"{rng.choice(urls)}{RUNS}/{run_id}/events"

            tasks.append(asyncio.create_task(reader.read_all(http, somewhere, rng)))
        await asyncio.gather(*tasks)
        restless.cancel()
        await asyncio.wait({restless})

    assert len(readers) == 200
    assert sum(reader.connections for reader in readers.values()) > 400
    for run_id, reader in readers.items():
        assert reader.log == runner.runs[run_id].log
        assert [number for number, _ in reader.events] == list(range(len(reader.events)))


async def test_a_cut_between_gateway_and_runner_is_not_seen(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """One connection of the reader, many of the gateway: the same bytes."""
    cuts = 0

    def cut(data: bytes) -> int | None:
        nonlocal cuts
        cuts += bool(data)
        return len(data) * 2 // 3 if data and cuts % 2 else None

    async def script(stage: Stage) -> None:
        await stage.until_read()
        await stage.send(STARTED)
        for piece in PIECES * 3:
            await stage.send(text(piece))
            await asyncio.sleep(0.01)
        await stage.send(FINISHED)

    runner.script, runner.cut_after = script, cut
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_runner_patience_s=10)
    async with (
        run_gateway(settings) as gateway,
        gateway.stream(alice, accept=NDJSON) as response,
    ):
        lines = [line for line in (await response.read()).split(b"\n") if line]

    [stage] = runner.runs.values()
    assert b"".join(line + b"\n" for line in lines) == stage.log
    assert cuts > 4


async def test_a_killed_gateway_costs_a_run_nothing(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User, tmp_path: Path
) -> None:
    """`kill -9` mid-run: the run goes on, its reader misses nothing, its record is written."""
    port, go = free_port(), asyncio.Event()
    url = f"http://127.0.0.1:{port}"
    env = environment(pocketbase, runner.url, port)
    reader = SseReader()

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, *map(text, PIECES))
        await go.wait()
        await stage.send(*map(text, PIECES), FINISHED)

    runner.script = script
    async with ClientSession(headers={"Authorization": alice.token}) as http:
        async with started(env, tmp_path / "1") as process:
            await until_up(url, process)
            async with http.get(
                f"{url}/opencode/stream?prompt=x", headers={"Accept": SSE}
            ) as response:
                run_id, buffer = response.headers["X-Run-ID"], b""
                while len(reader.events) < 4:
                    buffer += await response.content.readany()
                    *blocks, buffer = buffer.split(b"\n\n")
                    for block in blocks:
                        reader.take(block)
                process.send_signal(signal.SIGKILL)
                await process.wait()
        go.set()
        async with started(env, tmp_path / "2") as process:
            await until_up(url, process)
            assert await reader.read(http, f"{url}{RUNS}/{run_id}/events", 1 << 20)

            def recorded() -> bool:
                path = f"/api/collections/runs/records/{run_id}"
                status, record = pocketbase.call("GET", path, token=alice.token)
                return status == 200 and record["status"] == "finished"

            await eventually(recorded)

    assert reader.log == runner.runs[run_id].log


async def test_a_reader_that_waits_holds_on_to_a_run_that_is_silent(
    pocketbase: RunningPocketBase,
    runner: FakeRunner,
    alice: User,
) -> None:
    """`/opencode/stream` with a key and `Last-Event-ID` goes on in its run."""
    go = asyncio.Event()

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, text("a"))
        await go.wait()
        await stage.send(text("b"), FINISHED)

    runner.script = script
    headers = {"Accept": "text/plain", "Idempotency-Key": "k"}
    settings = gateway_settings(pocketbase, runner_url=runner.url)
    path = "/opencode/stream?prompt=x"
    async with run_gateway(settings) as gateway:
        async with gateway.request("GET", path, user=alice, headers=headers) as response:
            assert await response.content.readany() == b"a"
            response.close()
        go.set()
        back = {**headers, "Last-Event-ID": "1"}
        async with gateway.request("GET", path, user=alice, headers=back) as response:
            body = await response.text()

    assert body == f"b\n[✔ User {alice.name} - Fertig!]\n"
    assert len(runner.runs) == 1
