"""The load generator, between its own ends: what is read is what was sent."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.source import DONE, source
from bench.streams import POSITION, reading
from bench.wire import Answer, AnswerBroken, Exchange, Server, request

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@given(pieces=st.lists(st.binary(min_size=1), max_size=6), cuts=st.lists(st.integers(0, 200)))
def test_an_answer_does_not_depend_on_where_it_breaks(pieces: list[bytes], cuts: list[int]) -> None:
    """A connection may split it anywhere."""
    wire = HEAD + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    answer = Answer()

    body = b"".join(answer.feed(wire[start:stop]) for start, stop in itertools.pairwise(edges))

    assert body == b"".join(pieces)
    assert answer.ended


def test_a_refusal_is_no_stream() -> None:
    """It says what came instead."""
    with pytest.raises(AnswerBroken, match="503 the queue is full"):
        Answer().feed(b"HTTP/1.1 503 Busy\r\nContent-Length: 17\r\n\r\nthe queue is full")


async def test_many_streams_are_read_to_their_end() -> None:
    """Every piece once, each with its delay; none broken."""
    async with source() as provider:
        provider.each(pieces=5, interval_s=0.001)
        asked = [request("POST", "/v1/chat/completions", body=b"{}")] * 20
        async with (
            asyncio.timeout(10),
            reading("127.0.0.1", provider.port, asked, end=DONE) as streams,
        ):
            await streams.until_all_speak()
            await streams.until_over()

    assert streams.broken == []
    assert streams.pieces == 100
    assert len(streams.delays_s) == 80
    assert min(streams.delays_s) > 0


async def test_the_runner_that_runs_nothing_streams_what_it_accepted() -> None:
    """As the gateway asks it."""
    run = {"run_id": "a" * 15, "subject": "alice", "prompt": "Hi"}
    async with source() as runner, asyncio.timeout(10):
        told = await _one(runner.port, request("POST", "/runs", body=json.dumps(run).encode()))
        asked = [request("GET", f"/runs/{'a' * 15}/events")]
        async with reading("127.0.0.1", runner.port, asked) as streams:
            await streams.until_over()
        states = await _one(runner.port, request("GET", f"/runs?ids={'a' * 15},x"))

    assert b"202 Accepted" in told
    streams.check()
    assert streams.pieces == 2
    assert b'"status": "finished"' in states


async def test_what_breaks_is_counted() -> None:
    """A connection that is lost, an answer that does not end as it should, a refusal."""

    def handle(exchange: Exchange) -> None:
        match exchange.target:
            case "/lost":
                exchange.begin("text/plain")
                exchange.send(b'"position":3')
                exchange._transport.close()
            case "/short":
                exchange.begin("text/plain")
                exchange.end(b"no good end")
            case _:
                exchange.answer(b"no", status="401 Unauthorized")

    server = await asyncio.get_running_loop().create_server(lambda: Server(handle), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    asked = [request("GET", path) for path in ("/lost", "/short", "/refused")]
    async with asyncio.timeout(10), reading("127.0.0.1", port, asked, pattern=POSITION) as streams:
        await streams.until_all_speak()
        await streams.until_over()
    server.close()

    assert [number for _, number in streams.streams[0].found] == [3]
    assert [broken.split(" (")[0] for broken in streams.broken] == [
        "the connection was lost",
        "ended with 'no good end'",
        "401 no",
    ]
    with pytest.raises(RuntimeError, match="3 of 3 streams broke"):
        streams.check()


async def _one(port: int, asked: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    told = await reader.read(1 << 16)
    writer.close()
    return told
