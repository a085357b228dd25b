"""The spawner's door: who may ask, for what, and what becomes of what was asked for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from runner.spawner.channel import Channel, ChannelClosed, connect
from tests.support.ordinary_user import REPOSITORY, as_ordinary_user
from tests.support.spawner import RunningSpawner, run_spawner
from tests.unit.runner.test_spawner_api import START, furnished

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

KNOCK = """
import json, socket, sys
caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
caller.connect(sys.argv[1])
caller.settimeout(10)
try:
    caller.send(b'{"do": "list"}')
    print(caller.recv(1000))
except OSError as exc:
    print(type(exc).__name__)
"""


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[RunningSpawner]:
    with run_spawner(tmp_path / "runs") as running:
        yield running


@asynccontextmanager
async def caller(spawner: RunningSpawner) -> AsyncIterator[Channel]:
    channel = await connect(spawner.socket)
    try:
        yield channel
    finally:
        channel.close()


async def answer(channel: Channel, request: dict[str, Any]) -> dict[str, Any]:
    channel.send(request)
    async with asyncio.timeout(20):
        while True:
            message, fd = await channel.receive()
            if fd is not None:
                os.close(fd)
            if "do" in message or message["is"] == "refused":
                return message


async def test_only_the_three_orders_are_taken(spawner: RunningSpawner) -> None:
    """Whatever else is asked makes no container, and the spawner goes on."""
    furnished(spawner.runs / "a")
    asked: list[dict[str, Any]] = [
        {},
        {"do": "exec", "run": "a", "command": ["id"]},
        {**START, "run": "a", "image": "debian:bookworm-slim"},
        {**START, "run": "a", "mounts": [{"Source": "/", "Target": "/host"}]},
        {**START, "run": "../runs/a"},
    ]
    async with caller(spawner) as channel:
        for request in asked:
            assert await answer(channel, request) == {
                "is": "refused",
                "reason": "not offered here",
            }
        assert await answer(channel, {"do": "list"}) == {"is": "done", "do": "list", "runs": []}
    assert spawner.containers() == []


async def test_directories_that_lead_elsewhere_are_refused(spawner: RunningSpawner) -> None:
    """A link is no directory of a run."""
    run = furnished(spawner.runs / "a")
    (run / "home").rmdir()
    (run / "home").symlink_to("/")

    async with caller(spawner) as channel:
        refused = await answer(channel, {**START, "run": "a"})

    assert refused["is"] == "refused"
    assert "directory" in refused["reason"]
    assert spawner.containers() == []


async def test_a_container_ends_with_its_callers_connection(spawner: RunningSpawner) -> None:
    """That is the lease: a caller that is gone can't be asked whether it still needs one."""
    furnished(spawner.runs / "a")
    async with caller(spawner) as channel:
        await answer(channel, {**START, "run": "a"})
        twice = await answer(channel, {**START, "run": "a"})
        assert "already" in twice["reason"]

    async with asyncio.timeout(20):
        while spawner.containers():
            await asyncio.sleep(0.1)


async def test_garbage_ends_the_connection(spawner: RunningSpawner) -> None:
    """Not the spawner."""
    async with caller(spawner) as channel:
        channel._socket.send(b"\xff{")
        with pytest.raises(ChannelClosed):
            async with asyncio.timeout(10):
                await channel.receive()
    async with caller(spawner) as channel:
        assert (await answer(channel, {"do": "list"}))["runs"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
async def test_another_user_is_not_answered(spawner: RunningSpawner) -> None:
    """The kernel tells who calls."""
    spawner.runs.parent.chmod(0o755)
    with as_ordinary_user([sys.executable, "-c", KNOCK, str(spawner.socket)]) as command:
        told = subprocess.run(
            command.argv,
            pass_fds=command.fds,
            cwd=REPOSITORY,
            capture_output=True,
            check=False,
            timeout=30,
        )

    assert told.stdout.strip() in {b"b''", b"ConnectionResetError", b"BrokenPipeError"}, told
