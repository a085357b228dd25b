"""Nothing is lost and nothing comes twice, wherever connections and processes break."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from aiohttp import ClientSession

from tests.support.event_readers import SseReader, read_once
from tests.support.fake_runner import FINISHED, STARTED, text
from tests.support.gateway import gateway_settings, run_gateway
from tests.support.gateway_process import environment, started, until_up
from tests.support.pocketbase import free_port
from tests.support.processes import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner, Stage
    from tests.support.pocketbase import RunningPocketBase, User

RUNS = "/opencode/runs"
NDJSON, SSE = "application/x-ndjson", "text/event-stream"
PIECES = ["Grüße ", "🙂", "\n\n", 'data: "x"', "a" * 3000, " – naïve", "\r", "id: 7\n"]


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
                run_id = response.headers["X-Run-ID"]
                while len(reader.events) < 4:
                    assert not reader.feed(await response.content.readany())
                reader.cut()
                process.send_signal(signal.SIGKILL)
                await process.wait()
        go.set()
        async with started(env, tmp_path / "2") as process:
            await until_up(url, process)
            assert await read_once(reader, http, f"{url}{RUNS}/{run_id}/events")

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
