"""An agent's line, when the agent is up to something."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runner.acp.connection import AgentGone, Connection, connect
from runner.contract.wire import LineTooLong
from tests.support.processes import eventually


class DeafWriter:
    """The input of an agent that never reads: nothing is ever drained."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += 1

    async def drain(self) -> None:
        await asyncio.Event().wait()


async def refuse(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {}


def question(number: int) -> bytes:
    return json.dumps({"id": number, "method": "session/request_permission"}).encode() + b"\n"


async def test_an_agent_that_asks_and_never_listens_is_not_read_further() -> None:
    """Else its questions would fill the runner's memory."""
    reader, writer = asyncio.StreamReader(), DeafWriter()
    async with connect(reader, writer, on_request=refuse):
        for number in range(500):
            reader.feed_data(question(number))
        await eventually(lambda: writer.written >= 16)
        await asyncio.sleep(0)

        assert writer.written == 16


async def test_a_line_without_end_ends_the_connection() -> None:
    """It is not collected for ever."""
    reader = asyncio.StreamReader()
    connection = Connection(reader, DeafWriter(), on_request=refuse)
    reader.feed_data(b"x" * (17 << 20))

    with pytest.raises(LineTooLong):
        await connection.read()

    with pytest.raises(AgentGone):
        await connection.request("initialize", {})


async def test_nested_nonsense_is_ignored() -> None:
    """Deeper than the parser goes."""
    reader = asyncio.StreamReader()
    heard: list[str] = []

    async def hear(method: str, params: dict[str, Any]) -> None:
        heard.append(method)

    async with connect(reader, DeafWriter(), on_request=refuse) as connection:
        connection.listen(hear)
        reader.feed_data(b"[" * 100_000 + b"\n" + b'{"method": "session/update"}\n')
        await eventually(lambda: heard)

    assert heard == ["session/update"]
