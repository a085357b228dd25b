"""`kill -9` of one part after the other, mid-run, in the stack as `make run` starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, ClientTimeout

from tests.support.event_readers import SseReader, read_once
from tests.support.fake_provider import Plan, fake_provider
from tests.support.processes import eventually
from tests.support.stack import StackProcess, start_stack

if TYPE_CHECKING:
    from typing import Any


def pid_of(stack: StackProcess, part: str) -> int:
    """Return the process of a part that runs now."""
    stack.look_around()
    command = f"-m\0{part}\0".encode()
    return max(pid for pid in stack.alive() if command in Path(f"/proc/{pid}/cmdline").read_bytes())


def texts(reader: SseReader) -> list[str]:
    events = [json.loads(data) for _, data in reader.events]
    return [event["text"] for event in events if event["type"] == "text.delta"]


async def sign_in(http: ClientSession, stack: StackProcess) -> dict[str, str]:
    email, password = stack.words(r"Demo user +(\S+) +password: (\S+)")
    async with http.post(
        f"{stack.origin}/api/collections/users/auth-with-password",
        json={"identity": email, "password": password},
    ) as response:
        return {"Authorization": (await response.json())["token"]}


async def read_all(reader: SseReader, http: ClientSession, url: str) -> None:
    """Come back until the end."""
    while not await read_once(reader, http, url):
        await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
async def test_gateway_then_runner_are_killed_under_a_reader(tmp_path: Path) -> None:
    """A reader that comes back misses nothing and is told the end; so is the record."""
    gate = asyncio.Semaphore(2)
    async with fake_provider() as provider:
        provider.plan = Plan(pieces=["eins", "zwei", "drei", "vier"], gate=gate)
        with start_stack(
            tmp_path / "data",
            OPENAI_API_KEY="sk-x",
            OPENAI_BASE_URL=provider.base_url,
            MODELS="openai/scripted",
            GATEWAY_RUNNER_PATIENCE_S="60",
        ) as stack:
            await asyncio.to_thread(stack.wait_until_up)
            timeout = ClientTimeout(total=None, sock_read=60)
            async with ClientSession(timeout=timeout) as anonymous:
                headers = await sign_in(anonymous, stack)
            async with ClientSession(headers=headers, timeout=timeout) as http:
                runs, reader = f"{stack.origin}/opencode/runs", SseReader()
                async with http.post(runs, json={"prompt": "x"}) as response:
                    run_id = (await response.json())["id"]
                reading = asyncio.create_task(read_all(reader, http, f"{runs}/{run_id}/events"))
                await eventually(lambda: len(texts(reader)) == 2, within_s=90)

                os.kill(pid_of(stack, "gateway"), signal.SIGKILL)
                gate.release()
                await eventually(lambda: len(texts(reader)) == 3, within_s=60)
                os.kill(pid_of(stack, "runner"), signal.SIGKILL)

                async with asyncio.timeout(90):
                    await reading
                record: dict[str, Any] = {}
                path = f"/api/collections/runs/records/{run_id}"
                async with asyncio.timeout(60):
                    while not record.get("ended"):
                        async with http.get(stack.origin + path) as response:
                            record = await response.json()
                        await asyncio.sleep(0.1)
            log = (stack.data_dir / "runs" / run_id / "events.ndjson").read_bytes()

    last = json.loads(reader.events[-1][1])
    assert reader.log == log
    assert texts(reader) == ["eins", "zwei", "drei"]
    assert [number for number, _ in reader.events] == list(range(len(reader.events)))
    assert (last["type"], last["code"]) == ("run.failed", "runner-restarted")
    assert (record["status"], record["error_code"]) == ("failed", "runner-restarted")
