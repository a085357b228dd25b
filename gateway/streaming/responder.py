"""Pump events into an HTTP response, no faster than the client reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from runner.contract.headers import RUN_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
    # One pending read all along: a read given up at a heartbeat would end the generator.
    upcoming = asyncio.ensure_future(_next(batches))
    try:
        if preamble := encoder.preamble():
            await response.write(preamble)
        while True:
            ready, _ = await asyncio.wait({upcoming}, timeout=heartbeat_s)
            batch = upcoming.result() if ready else []
            if batch is None:
                break
            data = b"".join(map(encoder.encode, batch)) if ready else encoder.heartbeat()
            if data:
                async with asyncio.timeout(write_timeout_s):
                    await response.write(data)  # waits while the client's buffers are full
            if batch and batch[-1].is_terminal:
                async with asyncio.timeout(write_timeout_s):
                    await response.write_eof()
                await _next(batches)  # the caller has it all; the runner may still tidy up
                break
            if ready:
                upcoming = asyncio.ensure_future(_next(batches))
    except (ConnectionError, TimeoutError) as exc:
        log.info("client_gone", error=type(exc).__name__)
        return break_off(request, response)
    finally:
        upcoming.cancel()
        await asyncio.wait({upcoming})
    return response


def break_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection without the final chunk, so that nobody takes the body for whole."""
    if request.transport is not None:
        request.transport.abort()
    return response


async def _next(batches: AsyncIterator[list[EventLine]]) -> list[EventLine] | None:
    return await anext(batches, None)
