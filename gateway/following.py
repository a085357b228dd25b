"""A run's events from the runner, as if the connection to it never broke."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.streaming.lines import own_word
from runner.contract.events import RunFailed
from runner.contract.messages import sentence
from runner.contract.problems import RunnerUnavailable, ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.streaming.lines import EventLine
    from runner.contract.requests import Language

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0


class EventSource(Protocol):
    """Where a run's events can be read."""

    def events(
        self, run_id: str, *, subject: str, after: int | None, request_id: str
    ) -> AbstractAsyncContextManager[AsyncIterator[list[EventLine]]]:
        """Read the events after number *after*."""


async def follow(
    source: EventSource,
    run_id: str,
    *,
    subject: str,
    after: int | None,
    request_id: str,
    language: Language,
    patience_s: float,
) -> AsyncGenerator[list[EventLine], None]:
    """Yield a run's events after *after* in batches: each once, in order, to the terminal one.

    Where the runner breaks off, it is asked again for what follows. After *patience_s* without
    news of it the last event is one of our own that says so: it stands in no log.
    """
    last = -1 if after is None else after
    lost_at: float | None = None
    backoff_s = _FIRST_BACKOFF_S
    code = "runner-unavailable"
    while True:
        failure: ServiceError = RunnerUnavailable()
        try:
            opened = source.events(
                run_id, subject=subject, after=None if last < 0 else last, request_id=request_id
            )
            async with opened as batches, aclosing(_after(batches, last)) as news:
                async for batch in news:
                    last, lost_at, backoff_s = batch[-1].seq, None, _FIRST_BACKOFF_S
                    yield batch
                    if batch[-1].is_terminal:
                        return
        except ServiceError as exc:
            failure = exc
        now = time.monotonic()
        lost_at = now if lost_at is None else lost_at
        log.info("runner_connection_lost", run_id=run_id, code=failure.code, last_seq=last)
        if failure.status == HTTPStatus.NOT_FOUND:
            code = "runner-restarted"  # it has forgotten the run
            break
        if now - lost_at >= patience_s:
            break
        await asyncio.sleep(min(backoff_s, patience_s))
        backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
    log.warning("runner_lost", run_id=run_id, code=code)
    yield [own_word(RunFailed(code=code, message=sentence(code, language)))]


async def _after(
    batches: AsyncIterator[list[EventLine]], last: int
) -> AsyncGenerator[list[EventLine], None]:
    """Yield what has not been read yet; nothing follows a terminal event."""
    async for batch in batches:
        # Almost always all of it.
        news = batch if batch[0].seq > last else [line for line in batch if line.seq > last]
        if news:
            yield news
