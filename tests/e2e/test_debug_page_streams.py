"""The debug page reads streams right, wherever their chunks break; in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.browser import open_page, run_browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = Path(__file__).parents[2] / "pb_public"
EVENTS: list[dict[str, Any]] = [
    {"seq": 0, "type": "text.delta", "text": "Grüße, 世界 🎉"},
    {"seq": 1, "type": "text.delta", "text": 'two\nlines, a \r, a \u2028 and a "data: x"'},
    {"seq": 2, "type": "run.finished", "stop_reason": "end_turn", "duration_s": 1.5},
]

# Gives the bytes to the page's reader in pieces of each size from 1 byte to all at once.
_READ_IN_PIECES = """
async ({ bytes, format }) => {
  const { readBatches } = await import("/debug/stream.js");
  const all = new Uint8Array(bytes);
  const results = [];
  for (let size = 1; size <= all.length; size++) {
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < all.length; at += size) controller.enqueue(all.slice(at, at + size));
        controller.close();
      },
    });
    const events = [];
    for await (const batch of readBatches(body, format)) events.push(...batch.events);
    results.push(events);
  }
  return results;
}
"""


async def blank_page(_request: web.Request) -> web.Response:
    icon = '<link rel="icon" href="data:,">'  # else the browser asks for one
    return web.Response(text=f"<!doctype html>{icon}", content_type="text/html")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    app = web.Application()
    app.router.add_get("/", blank_page)
    app.router.add_static("/", PUBLIC)
    async with (
        TestServer(app) as server,
        run_browser() as browser,
        open_page(browser, str(server.make_url("/"))) as page,
    ):
        yield page


async def read_in_pieces(page: Page, data: bytes, media_type: str) -> list[Any]:
    result = await page.evaluate(_READ_IN_PIECES, {"bytes": list(data), "format": media_type})
    assert isinstance(result, list)
    assert len(result) == len(data)
    return result


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_server_sent_events_survive_any_chunking(page: Page, newline: str) -> None:
    """Characters, line ends and events may be cut anywhere; comments and other fields pass."""
    lines = [": heartbeat", ""]
    for event in EVENTS:
        data = json.dumps(event, ensure_ascii=False).replace("\\r", "\\u000d")
        lines += [f"id: {event['seq']}", f"event: {event['type']}", f"data:{data}", "", ":", ""]
    stream = newline.join([*lines, ""]).encode()

    for events in await read_in_pieces(page, stream, "text/event-stream"):
        assert events == EVENTS


async def test_ndjson_survives_any_chunking(page: Page) -> None:
    """One event a line; blank lines are heartbeats."""
    lines = [json.dumps(event, ensure_ascii=False) for event in EVENTS]
    stream = "\n\n".join(["", *lines, ""]).encode()

    for events in await read_in_pieces(page, stream, "application/x-ndjson"):
        assert events == EVENTS


@pytest.mark.parametrize(
    ("tail", "terminal"),
    [
        pytest.param("\n[✔ User Jörg - Fertig!]\n", [{"type": "run.finished"}], id="finished"),
        pytest.param(
            "\n[ERROR] Schade\n", [{"type": "run.failed", "message": "Schade"}], id="failed"
        ),
        pytest.param("", [], id="broken-off"),
    ],
)
async def test_plain_text_tells_its_end_by_the_last_line(
    page: Page, tail: str, terminal: list[Any]
) -> None:
    """All text is the answer; a marker in the middle of it is no end."""
    text = "Grüße 🎉\n[✔ User x - Fertig!]\nand on" + tail

    for events in await read_in_pieces(page, text.encode(), "text/plain"):
        deltas = [event for event in events if event["type"] == "text.delta"]
        assert "".join(event["text"] for event in deltas) == text
        assert events[len(deltas) :] == terminal


async def test_an_event_that_is_cut_off_is_none(page: Page) -> None:
    """A stream that breaks in the middle of an event yields the whole ones before it."""
    stream = b'data: {"seq":0,"type":"text.delta","text":"a"}\n\ndata: {"seq":1}\n'

    for events in await read_in_pieces(page, stream, "text/event-stream"):
        assert [event["seq"] for event in events] == [0]
