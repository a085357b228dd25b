"""The use case: read the caller's key, start the run, pass its events on, tell how it ended."""

from __future__ import annotations

import secrets
import string
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.streaming.lines import line_of
from runner.contract.events import RunFailed
from runner.contract.problems import RunnerUnavailable, ServiceError
from runner.contract.requests import StartRun

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from pydantic import SecretStr

    from gateway.auth.tokens import Identity
    from gateway.streaming.lines import EventLine
    from runner.contract.requests import Language

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_ID_CHARS = string.ascii_lowercase + string.digits
_ID_LENGTH = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What a caller wants, checked."""

    text: str
    model: str | None
    language: Language


class Keys(Protocol):
    """Where callers' API keys come from."""

    async def reveal(self, identity: Identity) -> SecretStr | None:
        """Return the caller's key, None if they have none."""


class Runner(Protocol):
    """What runs prompts."""

    def start(
        self, run: StartRun, *, request_id: str
    ) -> AbstractAsyncContextManager[AsyncIterator[list[EventLine]]]:
        """Start *run*; yields its events in batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRun:
    """A run that the runner accepted.

    Attributes:
        id: Its id, the same everywhere.
        batches: Its events; always ends with a terminal one.
    """

    id: str
    batches: AsyncIterator[list[EventLine]]


@dataclass(slots=True)
class _Tally:
    """What the log says about a run."""

    events: int = 0
    size_bytes: int = 0
    next_seq: int = 0
    outcome: str = "disconnected"  # unless a terminal event or a refusal says otherwise

    def add(self, line: EventLine) -> None:
        self.events += 1
        self.size_bytes += len(line.raw)
        self.next_seq = line.seq + 1
        if line.is_terminal:
            self.outcome = str(line.fields.get("code") or line.type.removeprefix("run."))


class RunService:
    """Order of things: key, start, events; undone in reverse, whatever happens."""

    def __init__(self, *, keys: Keys, runner: Runner) -> None:
        self._keys = keys
        self._runner = runner

    @asynccontextmanager
    async def open(
        self, identity: Identity, prompt: Prompt, *, request_id: str
    ) -> AsyncIterator[OpenRun]:
        """Run *prompt* while the block runs; leaving it early cancels the run.

        Raises:
            ServiceError: The key can't be read, or the runner refuses or is away.
        """
        run_id = "".join(secrets.choice(_ID_CHARS) for _ in range(_ID_LENGTH))
        started = time.monotonic()
        tally = _Tally()
        log.info("run_requested", run_id=run_id, model=prompt.model)
        try:
            run = StartRun(
                run_id=run_id,
                subject=identity.user_id,
                prompt=prompt.text,
                model=prompt.model,
                key=await self._keys.reveal(identity),
                language=prompt.language,
            )
            async with (
                self._runner.start(run, request_id=request_id) as batches,
                aclosing(_whole(batches, tally, prompt.language)) as whole,
            ):
                yield OpenRun(id=run_id, batches=whole)
        except ServiceError as exc:
            tally.outcome = exc.code
            raise
        finally:
            log.info(
                "run_ended",
                run_id=run_id,
                outcome=tally.outcome,
                duration_s=round(time.monotonic() - started, 3),
                events=tally.events,
                bytes=tally.size_bytes,
            )


async def _whole(
    batches: AsyncIterator[list[EventLine]], tally: _Tally, language: Language
) -> AsyncGenerator[list[EventLine], None]:
    """Yield *batches*; where the runner breaks off, the terminal event it did not send."""
    try:
        async for batch in batches:
            for line in batch:
                tally.add(line)
            yield batch
    except RunnerUnavailable as exc:
        log.warning("runner_lost", cause=type(exc.__cause__).__name__)
        failed = line_of(
            RunFailed(seq=tally.next_seq, code=exc.code, message=exc.sentence(language))
        )
        tally.add(failed)
        yield [failed]
