"""Connections that are kept, and what becomes of a request when one was closed meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientError

from gateway.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WITHIN_S = 5.0


@dataclass
class Server:
    """Plays answers, one a request; None: hangs up instead."""

    answers: list[bytes | None] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                if answer is None:
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(*answers: bytes | None) -> AsyncIterator[tuple[Server, Upstream]]:
    server = Server(list(answers))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    upstream = Upstream(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/base/")
    try:
        yield server, upstream
    finally:
        upstream.close()
        listening.close()


async def asked(upstream: Upstream, method: str = "GET") -> tuple[int, bytes]:
    return await upstream.read(method, "/x?y", [("A", "b")], timeout_s=WITHIN_S)


async def test_a_connection_serves_one_request_after_another() -> None:
    """Whole answers keep it, whatever their form."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with served(OK, chunked, early, empty) as (server, upstream):
        told = [await asked(upstream) for _ in range(4)]

    assert told == [(200, b"ok"), (200, b"ok"), (200, b"ok"), (204, b"")]
    assert server.connections == 1
    assert server.heads[0].startswith(b"GET /base/x?y HTTP/1.1\r\nHost: 127.0.0.1:")
    assert server.heads[0].endswith(b"\r\nA: b\r\n\r\n")


async def test_the_head_alone_is_a_whole_answer_to_head() -> None:
    """Its Content-Length is about a body that does not come."""
    async with served(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", OK) as (server, upstream):
        assert await asked(upstream, "HEAD") == (200, b"")
        assert await asked(upstream) == (200, b"ok")
        assert server.connections == 1


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    """What may be asked twice is; what may not is not, nor what a new connection refuses."""
    async with served(OK, None, OK, None, None) as (server, upstream):
        assert await asked(upstream) == (200, b"ok")
        assert await asked(upstream) == (200, b"ok")
        with pytest.raises((ClientError, OSError)):
            await asked(upstream, "POST")
        with pytest.raises((ClientError, OSError)):
            await asked(upstream)
        assert len(server.heads) == 5


async def test_the_rest_of_an_answer_is_not_taken_for_the_next() -> None:
    """Who gives an answer back unread ends its connection."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    async with served(half, OK) as (server, upstream):
        answer = await upstream.ask("GET", "/", ())
        upstream.done(answer)
        assert await asked(upstream) == (200, b"ok")
        assert server.connections == 2


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\n", "a\0"])
async def test_a_header_can_not_bring_another_one(value: str) -> None:
    """Nothing is sent then."""
    async with served(OK) as (server, upstream):
        with pytest.raises(ValueError, match="line break"):
            await upstream.ask("GET", "/", [("A", value)])
        assert server.connections == 0


async def test_no_http_is_an_error() -> None:
    """As if there were no answer."""
    async with served(b"SSH-2.0-x\r\n\r\n") as (_, upstream):
        with pytest.raises((ClientError, OSError)):
            await asked(upstream)
