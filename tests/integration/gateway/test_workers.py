"""Several processes on one port are one gateway."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import ClientError, ClientSession

from tests.support.fake_runner import FINISHED, STARTED, text
from tests.support.gateway_process import (
    environment,
    session_with_each,
    started,
    until_up,
    workers_of,
)
from tests.support.pocketbase import PASSWORD, free_port
from tests.support.processes import alive, eventually

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner, Stage
    from tests.support.pocketbase import RunningPocketBase, User

WORKERS = 3
WITHIN_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway of several workers."""

    url: str
    process: Process
    log: Path


@asynccontextmanager
async def gateway_of(
    pocketbase: RunningPocketBase, runner: FakeRunner, tmp_path: Path, **settings: str
) -> AsyncIterator[Gateway]:
    port, log = free_port(), tmp_path / "log"
    env = environment(pocketbase, runner.url, port) | {"GATEWAY_WORKERS": str(WORKERS)}
    async with started(env | settings, log) as process:
        gateway = Gateway(url=f"http://127.0.0.1:{port}", process=process, log=log)
        await until_up(gateway.url, process)
        yield gateway


async def start(session: ClientSession, prompt: str = "Hi") -> str:
    async with session.post("/opencode/runs", json={"prompt": prompt}) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


async def endless(stage: Stage) -> None:
    await stage.send(STARTED, text("Hallo"))
    await asyncio.Event().wait()


async def status_of_key(session: ClientSession) -> int:
    async with session.get("/opencode/key") as response:
        return response.status


async def test_what_one_worker_began_the_others_go_on_with(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User, tmp_path: Path
) -> None:
    """Sign in at one, start at the next, read at another, come back and cancel elsewhere."""
    runner.script = endless
    settings = {"GATEWAY_DEBOUNCE_S": "60"}
    async with (
        gateway_of(pocketbase, runner, tmp_path, **settings) as gateway,
        session_with_each(
            gateway.url,
            gateway.process,
            count=WORKERS,
            headers={"Authorization": alice.token, "Accept": "application/x-ndjson"},
        ) as sessions,
        asyncio.timeout(WITHIN_S),
    ):
        first, second, third = sessions.values()
        sign_in = "/api/collections/users/auth-with-password"
        credentials = {"identity": alice.email, "password": PASSWORD}
        async with first.post(sign_in, json=credentials) as response:
            token = (await response.json())["token"]

        headers = {"Authorization": token}
        run_id, double = await asyncio.gather(start(first), start(second))
        assert double == run_id  # a double click
        events = f"/opencode/runs/{run_id}/events"
        async with second.get(events, headers=headers) as response:
            assert await response.content.readline() == runner.runs[run_id].lines[0]
            assert await response.content.readline() == runner.runs[run_id].lines[1]
            response.close()
        async with third.get(events, headers={**headers, "Last-Event-ID": "0"}) as response:
            assert await response.content.readline() == runner.runs[run_id].lines[1]
            async with first.delete(f"/opencode/runs/{run_id}") as cancelled:
                assert cancelled.status == 200
            assert b"run.cancelled" in await response.content.readline()

    told = gateway.log.read_text(encoding="utf-8")
    assert all(f'"worker": {number}' in told for number in range(WORKERS))


async def test_a_changed_user_is_out_at_every_worker(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User, tmp_path: Path
) -> None:
    """Each hears of it by itself, at once: not when its trust in the token ends."""
    settings = {"GATEWAY_TOKEN_CACHE_S": "300"}
    async with (
        gateway_of(pocketbase, runner, tmp_path, **settings) as gateway,
        session_with_each(
            gateway.url,
            gateway.process,
            count=WORKERS,
            headers={"Authorization": alice.token},
        ) as sessions,
        asyncio.timeout(WITHIN_S),
    ):
        for session in sessions.values():
            assert await status_of_key(session) == 200

        pocketbase.change(alice, password="another-one", passwordConfirm="another-one")

        for session in sessions.values():
            while await status_of_key(session) != 401:
                await asyncio.sleep(0.05)


async def test_a_killed_worker_is_replaced_and_all_end_together(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User, tmp_path: Path
) -> None:
    """`kill -9` of one breaks its own connections alone, and its run is recorded all the same."""
    runner.script = endless
    headers = {"Authorization": alice.token, "Accept": "application/x-ndjson"}
    async with gateway_of(pocketbase, runner, tmp_path, GATEWAY_RECONCILE_S="0.5") as gateway:
        url, process = gateway.url, gateway.process
        async with (
            session_with_each(url, process, count=WORKERS, headers=headers) as sessions,
            asyncio.timeout(WITHIN_S),
        ):
            (victim, mourned), (_, survivor), *_ = sessions.items()
            run_id, other = await start(mourned, "eins"), await start(survivor, "zwei")
            async with survivor.get(f"/opencode/runs/{other}/events") as response:
                assert await response.content.readline() == runner.runs[other].lines[0]
                os.kill(victim, signal.SIGKILL)
                await eventually(lambda: len(set(workers_of(process)) - {victim}) == WORKERS)
                await runner.runs[other].send(text("weiter"), FINISHED)
                assert (await response.read()).endswith(runner.runs[other].lines[-1])
            await runner.runs[run_id].end(FINISHED)
        async with session_with_each(url, process, count=WORKERS, headers=headers) as sessions:
            assert victim not in sessions
            [session, *_] = sessions.values()
            async with asyncio.timeout(WITHIN_S):
                while await recorded(session) != {run_id: "finished", other: "finished"}:
                    await asyncio.sleep(0.1)

        workers = workers_of(process)
        process.terminate()
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0
        assert not alive(workers)


async def recorded(session: ClientSession) -> dict[str, str]:
    """Return the statuses of the runs that stand in PocketBase."""
    async with session.get("/api/collections/runs/records") as response:
        return {record["id"]: record["status"] for record in (await response.json())["items"]}


async def test_each_worker_counts_for_itself(
    pocketbase: RunningPocketBase, runner: FakeRunner, tmp_path: Path
) -> None:
    """Prometheus asks each at a port of its own; together they are the gateway."""
    port = free_port()
    settings = {"GATEWAY_METRICS_PORT": str(port), "GATEWAY_WORKERS": "2"}
    async with gateway_of(pocketbase, runner, tmp_path, **settings):
        counted = [await requests_counted(each) for each in (port, port + 10)]

    assert sorted(counted) == [0, 1]  # `until_up` asked one of them


async def requests_counted(port: int) -> float:
    """Return how many requests the worker whose metrics are at *port* has answered."""
    async with ClientSession() as http, asyncio.timeout(WITHIN_S):
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                    lines = (await response.text()).splitlines()
            except ClientError:  # it is not up yet
                await asyncio.sleep(0.05)
            else:
                name = "gateway_requests_total{"
                return sum(float(li.split()[-1]) for li in lines if li.startswith(name))


async def test_workers_do_not_outlive_their_parent(
    pocketbase: RunningPocketBase, runner: FakeRunner, tmp_path: Path
) -> None:
    """`kill -9` of the process that watches them ends them too."""
    async with gateway_of(pocketbase, runner, tmp_path) as gateway:
        await eventually(lambda: len(workers_of(gateway.process)) == WORKERS)
        workers = workers_of(gateway.process)
        gateway.process.kill()

        await eventually(lambda: not alive(workers))
