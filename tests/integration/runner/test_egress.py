"""`CONNECT` at a door: to listed hosts only, to public addresses only, beside model calls.

All hosts here are servers of the test's own on loopback; what counts as reachable is injected.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession

from runner.credential_proxy.door import open_door
from runner.credential_proxy.grants import Grant
from runner.credential_proxy.scripted import DemoTools
from runner.egress.policy import parse_policy
from runner.egress.tunnel import Egress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from runner.contract.events import RunEvent


async def tell(_event: RunEvent) -> None:
    """Nobody listens."""


@asynccontextmanager
async def echo_host() -> AsyncIterator[int]:
    """A host that sends back what it gets, in capitals; yields its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def door(rules: tuple[str, ...], addresses: Sequence[str]) -> AsyncIterator[int]:
    """A door with *rules*, whose resolver answers *addresses*; 127.0.0.1 counts as public."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    egress = Egress(
        policy=parse_policy(rules),
        resolve=resolve,
        may_reach=lambda address: address == "127.0.0.1",
    )
    grant = Grant(upstream=DemoTools(), model="tools", tell=tell)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)  # noqa: FBT003
        async with open_door(listening, token=None, egress=egress) as served:
            with served.granted(grant):
                yield listening.getsockname()[1]


async def ask(port: int, authority: str) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a CONNECT, byte by byte; return the answer's status and the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for byte in f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode():
        writer.write(bytes([byte]))
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1]), reader, writer


async def test_a_listed_host_is_reached_byte_for_byte() -> None:
    """Both ways, to the end of both sides."""
    async with echo_host() as host, door((f"tools.example.org:{host}",), ["127.0.0.1"]) as port:
        status, reader, writer = await ask(port, f"tools.example.org:{host}")
        writer.write(b"hello")
        writer.write_eof()
        async with asyncio.timeout(10):
            assert (status, await reader.read()) == (200, b"HELLO")
        writer.close()


@pytest.mark.parametrize(
    ("authority", "addresses"),
    [
        ("other.example.org:{host}", ["127.0.0.1"]),
        ("tools.example.org:1", ["127.0.0.1"]),
        ("127.0.0.1:{host}", ["127.0.0.1"]),
        ("tools.example.org:{host}", ["10.0.0.1"]),
        ("tools.example.org:{host}", ["127.0.0.1", "169.254.169.254"]),
        ("tools.example.org:{host}", []),
    ],
    ids=["unlisted", "other-port", "address", "private", "one-private", "no-address"],
)
async def test_nothing_else_is_reached(authority: str, addresses: list[str]) -> None:
    """An unlisted host, or a listed one that leads to an address that is not public."""
    async with echo_host() as host, door((f"tools.example.org:{host}",), addresses) as port:
        status, _, writer = await ask(port, authority.format(host=host))
        assert status == 403
        writer.close()


async def test_model_calls_come_through_the_same_door() -> None:
    """The door tells them apart by their first bytes."""
    async with door(("tools.example.org",), []) as port, ClientSession() as http:
        body = {"model": "tools", "messages": [{"role": "user", "content": "x"}]}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with http.post(url, json=body) as response:
            assert response.status == 200
            assert (await response.text()).endswith("data: [DONE]\n\n")


async def test_closing_the_door_closes_its_tunnels() -> None:
    """Also those that are silent, and connections that have said nothing yet."""
    async with echo_host() as host:
        async with door((f"tools.example.org:{host}",), ["127.0.0.1"]) as port:
            _, tunnel, tunnel_writer = await ask(port, f"tools.example.org:{host}")
            mute, mute_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            assert await tunnel.read() == b""
            with suppress(ConnectionResetError):
                assert await mute.read() == b""
        tunnel_writer.close()
        mute_writer.close()
