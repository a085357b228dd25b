"""What goes over the wire on both sides of the pass-through, with a server that tells all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.gateway import gateway_settings, run_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase

    Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Upstream:
    """A server in PocketBase's place that keeps what it is sent and plays what it is told."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.answer: Serve = self._ok
        self.left = asyncio.Event()

    async def _ok(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith((b"POST /api/collections/_superusers", b"GET /api/realtime ")):
                self.heads.append(head)
                await self.answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def between(
    pocketbase: RunningPocketBase,
) -> AsyncIterator[tuple[RunningGateway, Upstream]]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = gateway_settings(pocketbase, pocketbase_url=f"http://127.0.0.1:{port}")
    try:
        async with run_gateway(settings) as gateway:
            yield gateway, upstream
    finally:
        server.close()


async def exchange(gateway: RunningGateway, request: bytes) -> bytes:
    """Send bytes, return all that comes back until the connection ends."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def headers_of(head: bytes) -> dict[str, Any]:
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


async def test_headers_about_the_connection_stay_on_their_side(
    pocketbase: RunningPocketBase,
) -> None:
    """Hop-by-hop headers go in neither direction, those that `Connection` names included."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 Fine\r\nConnection: X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n"
            b"Proxy-Authenticate: x\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            b"Content-Encoding: gzip\r\nX-Kept: yes\r\nContent-Length: 3\r\n\r\nabc"
        )
        await writer.drain()

    async with between(pocketbase) as (gateway, upstream):
        upstream.answer = answer
        got = await exchange(
            gateway,
            b"GET /x HTTP/1.1\r\nHost: team.example\r\nConnection: close, X-Secret\r\n"
            b"X-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: websocket\r\n"
            b"Proxy-Authorization: x\r\nProxy-Connection: x\r\nExpect: 100-continue\r\n"
            b"X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nForwarded: for=x\r\n"
            b"X-Real-IP: 203.0.113.7\r\nAccept-Encoding: br\r\nCookie: a=1; b=2\r\n\r\n",
        )

    got = got.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    sent, answered = headers_of(upstream.heads[0]), headers_of(got.partition(b"\r\n\r\n")[0])
    assert not {"x-secret", "te", "upgrade", "proxy-authorization", "proxy-connection"} & set(sent)
    assert not {"keep-alive", "expect", "forwarded", "x-real-ip", "user-agent"} & set(sent)
    assert sent["x-forwarded-for"] == "127.0.0.1"
    assert (sent["x-forwarded-host"], sent["x-forwarded-proto"]) == ("team.example", "http")
    assert sent["host"].startswith("127.0.0.1")
    assert (sent["accept-encoding"], sent["cookie"]) == ("br", "a=1; b=2")
    assert not {"x-private", "keep-alive", "proxy-authenticate", "upgrade"} & set(answered)
    assert answered["content-encoding"] == "gzip"  # passed on, not undone
    assert answered["x-kept"] == "yes"
    assert got.count(b"Set-Cookie: ") == 2
    assert got.endswith(b"abc")


@pytest.mark.parametrize(
    ("target", "passed"),
    [
        (b"/a%2Fb//c/../d?x=%zz&y=%2B+;", b"/a%2Fb//c/../d?x=%zz&y=%2B+;"),
        (b"http://evil.example/a?b", b"/a?b"),
        (b"//evil.example/a", b"//evil.example/a"),
        ("/grüße".encode(), b"/gr%C3%BC%C3%9Fe"),
        (b"/\xff", b"/%FF"),
    ],
)
async def test_targets_pass_as_they_are_and_nowhere_else(
    pocketbase: RunningPocketBase, target: bytes, passed: bytes
) -> None:
    """Path and query arrive as they were written, always at PocketBase."""
    async with between(pocketbase) as (gateway, upstream):
        got = await exchange(
            gateway, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )

    if target.isascii():
        assert upstream.heads[0].split(b" ")[1] == passed
    else:  # aiohttp's fast parser refuses what may not stand in a URL, its slow one does not
        assert got.startswith(b"HTTP/1.0 400") or upstream.heads[0].split(b" ")[1] == passed


async def test_an_asterisk_is_no_path(pocketbase: RunningPocketBase) -> None:
    """`OPTIONS *` is about the gateway itself, and nothing it knows."""
    async with between(pocketbase) as (gateway, upstream):
        got = await exchange(gateway, b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert got.startswith(b"HTTP/1.1 404")
    assert upstream.heads == []


async def test_bodies_pass_while_they_are_sent(pocketbase: RunningPocketBase) -> None:
    """Neither direction waits for the whole: each piece is seen before the next is sent."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while piece := await reader.readline():
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            if piece == b"0\r\n":
                return

    async with between(pocketbase) as (gateway, upstream):
        upstream.answer = echo
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        async with asyncio.timeout(10):
            for number in range(5):
                piece = b"piece-%d\n" % number
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await reader.readuntil(piece)
        writer.close()


async def test_half_an_answer_never_looks_whole(pocketbase: RunningPocketBase) -> None:
    """When PocketBase dies in the middle, the client's connection breaks too."""

    async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        writer.transport.abort()

    async with between(pocketbase) as (gateway, upstream):
        upstream.answer = die
        try:
            got = await exchange(gateway, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        except ConnectionResetError:
            got = b""

    assert not got.partition(b"\r\n\r\n")[2].endswith(b"0\r\n\r\n")


async def test_a_client_who_leaves_takes_the_connection_behind_along(
    pocketbase: RunningPocketBase,
) -> None:
    """No subscription stays open for nobody."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
        await writer.drain()
        await reader.readexactly(1)

    async with between(pocketbase) as (gateway, upstream):
        upstream.answer = endless
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /api/realtime?x HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.readuntil(b"data: x")
            writer.close()
            await upstream.left.wait()
