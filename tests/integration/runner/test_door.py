"""The door of a sandbox: closed until a run has it, and open for that run alone."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession

from runner.credential_proxy.door import Door, open_door
from runner.credential_proxy.grants import Grant
from runner.credential_proxy.scripted import WarmUp
from runner.egress.policy import parse_policy
from runner.egress.tunnel import Egress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runner.contract.events import RunEvent


async def tell(_: RunEvent) -> None: ...


def granted(model: str) -> Grant:
    return Grant(upstream=WarmUp("chat"), model=model, tell=tell)


@asynccontextmanager
async def a_door(*, token: str | None = None) -> AsyncIterator[tuple[Door, str]]:
    """A door that nobody has, and its address; it would let out to one host."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)  # noqa: FBT003
        port = listening.getsockname()[1]
        egress = Egress(policy=parse_policy(("tools.example.org:443",)))
        async with open_door(listening, token=token, egress=egress) as door:
            yield door, f"http://127.0.0.1:{port}"


async def status_of(url: str, model: str, *, token: str = "none") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        ClientSession(headers=headers) as http,
        http.post(f"{url}/v1/chat/completions", json={"model": model}) as response,
    ):
        return response.status


async def test_without_a_grant_nothing_is_answered() -> None:
    """Neither before a run has it nor after; and of two runs each has its own model."""
    async with a_door() as (door, url):
        assert await status_of(url, "one") == 403
        with door.granted(granted("one")):
            assert await status_of(url, "one") == 200
            assert await status_of(url, "two") == 403
        assert await status_of(url, "one") == 403


async def test_without_a_grant_nobody_gets_out() -> None:
    """A listed host is reached by the run that has the sandbox, not before."""
    async with a_door() as (_, url), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"CONNECT tools.example.org:443 HTTP/1.1\r\nHost: tools.example.org\r\n\r\n")
        status = int((await reader.readline()).split()[1])
        writer.close()

        assert 400 <= status < 500


async def test_a_door_is_one_runs_at_a_time() -> None:
    """Giving it away twice is a mistake that must not pass."""
    async with a_door() as (door, _):
        with door.granted(granted("one")), pytest.raises(RuntimeError):
            door.granted(granted("two")).__enter__()


async def test_where_others_reach_it_the_token_is_needed() -> None:
    """The backend `process` has no door of its own."""
    async with a_door(token="t") as (door, url):
        with door.granted(granted("one")):
            assert await status_of(url, "one") == 401
            assert await status_of(url, "one", token="t") == 200
