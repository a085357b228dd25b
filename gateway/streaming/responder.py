"""Pump events into an HTTP response, no faster than the client reads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from runner.contract.headers import RUN_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.streaming.encoders import Encoder
    from gateway.streaming.lines import EventLine

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def stream_headers(encoder: Encoder) -> dict[str, str]:
    """Return the headers of a stream: nothing on the way may keep or collect it."""
    return {
        "Content-Type": encoder.content_type,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
        "X-Content-Type-Options": "nosniff",
    }


async def stream_events(
    request: web.Request,
    batches: AsyncIterator[list[EventLine]],
    encoder: Encoder,
    *,
    run_id: str,
    heartbeat_s: float,
    write_timeout_s: float,
) -> web.StreamResponse:
    """Write every batch as it comes, keep the line warm in between.

    *batches* must end by itself, with a terminal event: failures are events here. A reader that
    takes nothing for *write_timeout_s* is cut off, so that nobody takes the body for whole.
    """
    response = web.StreamResponse(headers={**stream_headers(encoder), RUN_ID: run_id})
    await response.prepare(request)
    cut_off = partial(break_off, request, response)
    watch = _Watch(response, encoder.heartbeat(), heartbeat_s, write_timeout_s, cut_off)
    try:
        with watch:
            await _pump(response, batches, encoder, watch)
    except ConnectionError as exc:
        log.info("client_gone", error=type(exc).__name__)
        cut_off()
    else:
        # The caller has it all; the runner may still tidy up.
        await anext(batches, None)
    return response


async def _pump(
    response: web.StreamResponse,
    batches: AsyncIterator[list[EventLine]],
    encoder: Encoder,
    watch: _Watch,
) -> None:
    """Write all there is, to the end of the body."""
    if preamble := encoder.preamble():
        await response.write(preamble)
    async for batch in batches:
        data = b"".join(map(encoder.encode, batch))
        watch.begin()
        if data:
            await response.write(data)  # waits while the client's buffers are full
        if batch[-1].is_terminal:
            await response.write_eof()
            watch.end()
            return
        watch.end()


class _Watch:
    """Sends heartbeats in silence and cuts off a reader that takes nothing.

    One timer for a whole stream, which looks at what is the case when it is due: a task or a
    deadline for each piece would cost more than all else that is done with it.
    """

    def __init__(
        self,
        response: web.StreamResponse,
        heartbeat: bytes,
        heartbeat_s: float,
        write_timeout_s: float,
        cut_off: Callable[[], object],
    ) -> None:
        self._response = response
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._write_timeout_s = write_timeout_s
        self._cut_off = cut_off
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._is_writing = False
        self._beat: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._look()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()

    def begin(self) -> None:
        """Take note that something is being written."""
        self._is_writing, self._since = True, self._loop.time()

    def end(self) -> None:
        """Take note that it was taken, if only by the buffers on the way."""
        self._is_writing, self._since = False, self._loop.time()

    def _look(self) -> None:
        silent_s = self._loop.time() - self._since
        if self._is_writing or (self._beat is not None and not self._beat.done()):
            due_s = self._write_timeout_s - silent_s
            if due_s <= 0:
                log.info("client_gone", error="TimeoutError")
                self._cut_off()  # what waits for the reader learns that the connection is lost
                return
        else:
            due_s = self._write_timeout_s  # a write may begin, and get stuck
            if self._heartbeat:
                if silent_s >= self._heartbeat_s:
                    self._beat = self._loop.create_task(self._send_heartbeat())
                    self._since, silent_s = self._loop.time(), 0.0
                due_s = min(due_s, self._heartbeat_s - silent_s)
        self._timer = self._loop.call_later(due_s, self._look)

    async def _send_heartbeat(self) -> None:
        with suppress(ConnectionError):  # the next event finds out too
            await self._response.write(self._heartbeat)


def break_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection without the final chunk, so that nobody takes the body for whole."""
    if request.transport is not None:
        request.transport.abort()
    return response
