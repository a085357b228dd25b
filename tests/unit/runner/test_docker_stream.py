"""A container's attached stream, and the relay: bytes in, the same bytes out."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from runner.container.relay import serve
from runner.sandbox.docker_stream import Attached, attached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MUCH = 8 << 20


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@asynccontextmanager
async def engine() -> AsyncIterator[tuple[Attached, socket.socket]]:
    """Streams, and the engine's end of them."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # noqa: FBT003
    with theirs:
        async with attached(ours.detach()) as streams:
            yield streams, theirs


@given(
    frames=st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(max_size=50)), max_size=20),
    cut=st.integers(1, 7),
)
def test_outputs_are_told_apart_however_they_are_cut(
    frames: list[tuple[int, bytes]], cut: int
) -> None:
    """Every byte comes out of its own stream, in order; other streams are nobody's."""

    async def check() -> None:
        async with engine() as (streams, theirs):
            loop = asyncio.get_running_loop()
            data = b"".join(frame(*one) for one in frames)
            for start in range(0, len(data), cut):
                await loop.sock_sendall(theirs, data[start : start + cut])
            theirs.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(10):
                out, err = await asyncio.gather(streams.stdout.read(), streams.stderr.read())
            assert out == b"".join(words for stream, words in frames if stream == 1)
            assert err == b"".join(words for stream, words in frames if stream == 2)

    asyncio.run(check())


async def test_end_of_input_leaves_the_outputs_open() -> None:
    """A program that ends at the end of its input still has something to say."""
    async with engine() as (streams, theirs):
        loop = asyncio.get_running_loop()
        streams.stdin.write(b"question")
        streams.stdin.close()
        streams.stdin.close()
        assert await loop.sock_recv(theirs, 100) == b"question"
        assert await loop.sock_recv(theirs, 100) == b""

        await loop.sock_sendall(theirs, frame(1, b"answer"))

        assert await streams.stdout.readexactly(6) == b"answer"


async def test_a_slow_reader_slows_the_container() -> None:
    """What nobody reads is not piled up here."""
    async with engine() as (streams, theirs):
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(
            loop.sock_sendall(theirs, frame(1, b"x" * (64 << 10)) * (MUCH // (64 << 10)))
        )
        await asyncio.wait({sending}, timeout=0.3)
        assert not sending.done()

        async with asyncio.timeout(20):
            assert await streams.stdout.readexactly(MUCH) == b"x" * MUCH
            await sending


async def test_a_cut_in_the_middle_ends_both() -> None:
    """The engine may die at any byte."""
    async with engine() as (streams, theirs):
        await asyncio.get_running_loop().sock_sendall(theirs, frame(1, b"whole") + b"\x01\0")
        theirs.close()

        assert await streams.stdout.read() == b"whole"
        assert await streams.stderr.read() == b""


async def test_the_relay_carries_both_ways(tmp_path: Path) -> None:
    """To the runner's socket and back, and the end of each direction too."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async with await asyncio.start_unix_server(shout, tmp_path / "socket"):
        door = socket.create_server(("127.0.0.1", 0))
        relaying = asyncio.create_task(serve(door, str(tmp_path / "socket")))
        reader, writer = await asyncio.open_connection(*door.getsockname())
        writer.write(b"hello" * 100_000)
        writer.write_eof()
        async with asyncio.timeout(20):
            assert await reader.read() == b"HELLO" * 100_000
        writer.close()
        await writer.wait_closed()
        relaying.cancel()
        await asyncio.wait({relaying})
