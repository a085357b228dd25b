"""Two hundred runs, and everything between them and their readers breaks all the time."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout

from bench.agents import light_agents
from tests.support import fake_runner, gateway_process
from tests.support.cutting_proxy import cutting_proxy
from tests.support.event_readers import NdjsonReader, SseReader, TextReader, read_once
from tests.support.fake_provider import Plan, fake_provider
from tests.support.pocketbase import free_port
from tests.support.processes import eventually
from tests.support.runner import run_runner

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.event_readers import EventReader
    from tests.support.fake_provider import Seen
    from tests.support.pocketbase import RunningPocketBase, User

RUNS = "/opencode/runs"
COUNT = 200
PIECES = ["Grüße ", "🙂", "\n\n", 'data: "x"', "a" * 900, " – naïve", "\r", "id: 7\n", "👩‍💻"]
FORMATS: tuple[type[EventReader], ...] = (SseReader, NdjsonReader, TextReader)
pytestmark = pytest.mark.timeout(170)


class Chaos:
    """Two gateways of which one may be dying at any time, and who reads through them."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.urls: list[str] = []
        self.kills = 0
        self.is_over = False  # then nothing breaks any more, so that records can be complete
        self._directory = directory
        self._read = 0
        self._next_kill = 5

    async def gateway(self, env: dict[str, str]) -> None:
        """Serve, be killed, serve again; the other one is up meanwhile."""
        url = f"http://127.0.0.1:{env['GATEWAY_PORT']}"
        while True:
            log = self._directory / f"gateway-{self.kills}-{env['GATEWAY_PORT']}.log"
            async with gateway_process.started(env, log) as process:
                await gateway_process.until_up(url, process)
                self.urls.append(url)
                while not self._may_kill():
                    await asyncio.sleep(0.02)
                self.urls.remove(url)
                self.kills += 1
                self._next_kill += self.chance.randrange(15, 40)
                process.kill()

    def lifetime(self) -> int:
        """Return after how many bytes of answers the next connection to the runner breaks."""
        return 1 << 40 if self.is_over else self.chance.randrange(1, 9000)

    async def start(self, http: ClientSession, number: int) -> str:
        """Start a run, asking as often as it takes; return its id."""
        headers = {"Idempotency-Key": f"run-{number}"}
        body = {"prompt": f"Nummer {number}"}
        while True:
            try:
                url = f"{await self._somewhere()}{RUNS}"
                async with http.post(url, json=body, headers=headers) as response:
                    if response.status == 202:
                        return str((await response.json())["id"])
                    assert response.status == 503, await response.text()
            except (ClientError, OSError):
                pass
            await asyncio.sleep(0.05)

    async def read(self, http: ClientSession, number: int) -> tuple[str, EventReader]:
        """Start a run and read it to its end, coming back as often as it takes."""
        run_id, reader = await self.start(http, number), FORMATS[number % len(FORMATS)]()
        while True:
            url = f"{await self._somewhere()}{RUNS}/{run_id}/events"
            patience = None if isinstance(reader, TextReader) else self.chance.randrange(50, 9000)
            if await read_once(reader, http, url, hang_up_after=patience):
                self._read += 1
                return run_id, reader
            await asyncio.sleep(0.02)

    def _may_kill(self) -> bool:
        """Whether it is time, by the runs that have been read, and the other one serves."""
        both_serve = len(self.urls) == 2
        return both_serve and not self.is_over and self._read >= self._next_kill

    async def _somewhere(self) -> str:
        while not self.urls:
            await asyncio.sleep(0.02)
        return self.chance.choice(self.urls)


async def test_200_runs_lose_nothing(
    pocketbase: RunningPocketBase, alice: User, tmp_path: Path
) -> None:
    """What each reader has, put together, is the run's log byte for byte; so say the records."""
    chaos = Chaos(tmp_path, seed=5)
    headers = {"Authorization": alice.token}
    timeout = ClientTimeout(total=None, sock_read=20)

    def talk(_: Seen) -> Plan:
        pieces = chaos.chance.choices(PIECES, k=chaos.chance.randrange(5, 20))
        return Plan(pieces=pieces, interval_s=0.01)

    async with fake_provider() as provider, light_agents(tmp_path) as agent:
        provider.plan = talk
        with run_runner(
            tmp_path,
            RUNNER_SANDBOX="process",
            OPENCODE_BIN=str(agent),
            OPENAI_API_KEY="sk-x",
            OPENAI_BASE_URL=provider.base_url,
            OPENAI_API="chat",
            MODELS="openai/scripted",
            MAX_CONCURRENT_PROCESSES="12",
            GATEWAY_RUNS_PER_USER="12",
            RUNNER_QUEUE_SIZE=str(COUNT),
            RUNNER_TOKEN=fake_runner.TOKEN,
            LOG_LEVEL="info",
        ) as runner:
            async with cutting_proxy(runner.port, chaos.lifetime) as proxy:
                environments = [
                    gateway_process.environment(pocketbase, proxy.url, free_port())
                    | {"GATEWAY_RECONCILE_S": "1", "GATEWAY_RUNNER_PATIENCE_S": "90"}
                    for _ in range(2)
                ]
                lives = [asyncio.create_task(chaos.gateway(env)) for env in environments]
                async with ClientSession(headers=headers, timeout=timeout) as http:
                    read = await asyncio.gather(*(chaos.read(http, n) for n in range(COUNT)))
                chaos.is_over = True
                await eventually(lambda: ended(pocketbase, alice) == COUNT, within_s=60)
                for life in lives:
                    life.cancel()
                await asyncio.wait(lives)
        logs = {
            run_id: (runner.data_dir / "runs" / run_id / "events.ndjson").read_bytes()
            for run_id, _ in read
        }

    assert len(logs) == len(provider.requests) == COUNT
    for run_id, reader in read:
        if isinstance(reader, TextReader):
            assert reader.log.decode() == as_text(logs[run_id], alice.name)
        else:
            assert reader.log == logs[run_id]
    assert sum(reader.connections for _, reader in read) > COUNT
    assert chaos.kills
    assert proxy.cuts > COUNT // 4


def as_text(log: bytes, name: str) -> str:
    """Return what a reader of plain text has to get."""
    events = [json.loads(line) for line in log.splitlines()]
    told = "".join(event["text"] for event in events if event["type"] == "text.delta")
    return f"{told}\n[✔ User {name} - Fertig!]\n"


def ended(pocketbase: RunningPocketBase, user: User) -> int:
    """Return how many of the user's runs are recorded as finished."""
    path = "/api/collections/runs/records?perPage=1&filter=status%3D%27finished%27"
    return int(pocketbase.must("GET", path, token=user.token)["totalItems"])
