"""The use case: admit, wait for a slot, boot OpenCode, prompt it, tell what happens."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from runner.contract import events
from runner.contract.problems import RunFailure, ServiceError
from runner.credential_proxy.grants import Grant
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runner.agents.agent import AgentFactory, Outcome
    from runner.contract.events import RunEvent
    from runner.contract.requests import StartRun
    from runner.models.catalogue import Catalogue, Choice
    from runner.scheduler.scheduler import Scheduler, Ticket

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVENTS_AHEAD = 64
"""How many events may wait for the reader; then the run waits for it."""

_STOPPED_WAIT_S = 5.0
_REST_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a run may take, and how long it may be silent."""

    run_s: float
    idle_s: float


@dataclass(kw_only=True, slots=True, eq=False)
class Run:
    """One run, from admission to its terminal event."""

    start: StartRun
    choice: Choice
    ticket: Ticket
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last_event: float = field(default_factory=time.monotonic)
    _waiting: asyncio.Queue[RunEvent] = field(
        default_factory=lambda: asyncio.Queue(maxsize=_EVENTS_AHEAD)
    )
    _next_seq: int = 0

    async def tell(self, event: RunEvent) -> None:
        """Number *event* and hand it to the reader; waits while the reader is behind."""
        numbered = event.model_copy(update={"seq": self._next_seq})
        self._next_seq += 1
        await self._waiting.put(numbered)
        self.last_event = time.monotonic()

    async def events(self) -> AsyncIterator[RunEvent]:
        """Yield the events as they happen, up to the terminal one."""
        while True:
            event = await self._waiting.get()
            yield event
            if isinstance(event, events.Terminal):
                return


class RunService:
    """Carries out runs."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        scheduler: Scheduler,
        agents: AgentFactory,
        patience: Patience,
    ) -> None:
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._agents = agents
        self._patience = patience
        self._runs: set[Run] = set()

    @asynccontextmanager
    async def open(self, start: StartRun) -> AsyncIterator[AsyncIterator[RunEvent]]:
        """Yield the events of a new run; leaving the block ends the run and all it started.

        Raises:
            ModelNotAllowed, KeyRequired: The model can't be had.
            OpenCodeUnavailable: OpenCode is not installed.
            QueueFull: There is no room.
        """
        choice = self._catalogue.choose(start.model, start.key)
        self._agents.binary()
        with (
            self._scheduler.admission(start.subject) as ticket,
            structlog.contextvars.bound_contextvars(run_id=start.run_id, user_id=start.subject),
        ):
            run = Run(start=start, choice=choice, ticket=ticket)
            log.info("run_queued", model=choice.id, waiting=self._scheduler.waiting)
            working = asyncio.create_task(self._work(run))
            try:
                yield run.events()
            finally:
                await finish(_ended(working))

    async def stop_all(self) -> None:
        """End every run with `run.cancelled{by: shutdown}`; wait, bounded, until they are told."""
        for run in self._runs:
            run.stopped.set()
        if self._runs:
            ended = {asyncio.create_task(run.ended.wait()) for run in self._runs}
            _, late = await asyncio.wait(ended, timeout=_STOPPED_WAIT_S)
            for task in late:
                task.cancel()

    async def _work(self, run: Run) -> None:
        """Perform *run* and tell its end, whatever it is."""
        self._runs.add(run)
        began = time.monotonic()
        terminal: RunEvent
        outcome_word = "disconnected"
        try:
            terminal = await self._performed(run, began)
            outcome_word = getattr(terminal, "code", terminal.type)
            await run.tell(terminal)
        finally:
            self._runs.discard(run)
            run.ended.set()
            log.info(
                "run_finished",
                outcome=outcome_word,
                model=run.choice.id,
                duration_s=round(time.monotonic() - began, 3),
            )

    async def _performed(self, run: Run, began: float) -> RunEvent:
        """Return the terminal event of *run*."""
        try:
            outcome = await self._perform(run)
        except ServiceError as failure:
            return _failed(failure, run)
        except Exception as exc:
            log.exception("run_crashed", error=type(exc).__name__)
            return _failed(ServiceError(), run)
        if outcome is None:
            return events.RunCancelled(by="shutdown")
        return events.RunFinished(
            stop_reason=outcome.stop_reason,
            usage=outcome.usage,
            duration_s=round(time.monotonic() - began, 3),
        )

    async def _perform(self, run: Run) -> Outcome | None:
        """Wait for a slot, run the agent, return its outcome; None when it was stopped.

        Raises:
            ServiceError: The run failed.
        """
        grant = Grant(upstream=run.choice.upstream, model=run.choice.model.name, tell=run.tell)
        prompting = asyncio.create_task(self._prompt(run, grant))
        stopping = asyncio.create_task(run.stopped.wait())
        waited_for: set[asyncio.Future[Any]] = {prompting, stopping, grant.failure}
        try:
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            if grant.failed_midway:
                await _told_the_rest(prompting, grant)
        finally:
            stopping.cancel()
            prompting_done = prompting.done()
            await finish(_ended(prompting))
        if grant.failure.done():
            raise grant.failure.result()
        return prompting.result() if prompting_done else None

    async def _prompt(self, run: Run, grant: Grant) -> Outcome:
        queued_since = time.monotonic()
        async for position in run.ticket.positions():
            await run.tell(events.RunQueued(position=position))
        queued_s = round(time.monotonic() - queued_since, 3)
        try:
            async with asyncio.timeout(self._patience.run_s):
                return await self._with_agent(run, grant, queued_s)
        except TimeoutError as exc:
            raise RunFailure("timeout", limit_s=self._patience.run_s) from exc

    async def _with_agent(self, run: Run, grant: Grant, queued_s: float) -> Outcome:
        booting_since = time.monotonic()
        async with self._agents.boot(run.choice.model, grant) as agent:
            log.info(
                "run_started",
                model=run.choice.id,
                queued_s=queued_s,
                boot_s=round(time.monotonic() - booting_since, 3),
            )
            await run.tell(
                events.RunStarted(
                    model=run.choice.id, session_id=agent.session_id, queued_s=queued_s
                )
            )
            answering = asyncio.create_task(agent.prompt(run.start.prompt, run.tell))
            try:
                outcome = await self._unless_silent(answering, run, grant)
            finally:
                await finish(_ended(answering))
            if outcome.usage != events.Usage():
                await run.tell(events.UsageUpdated(**outcome.usage.model_dump()))
            return outcome

    async def _unless_silent(
        self, answering: asyncio.Task[Outcome], run: Run, grant: Grant
    ) -> Outcome:
        """Return what *answering* returns.

        Raises:
            RunFailure: Neither the agent nor the provider gave a sign for too long.
        """
        grant.sign_of_life()
        while True:
            silent_s = time.monotonic() - max(run.last_event, grant.last_sign)
            left_s = self._patience.idle_s - silent_s
            if left_s <= 0:
                raise RunFailure("idle-timeout", limit_s=self._patience.idle_s)
            done, _ = await asyncio.wait({answering}, timeout=left_s)
            if done:
                return answering.result()


async def _told_the_rest(prompting: asyncio.Task[Outcome], grant: Grant) -> None:
    """Wait, bounded, until OpenCode has told the text it had when the provider broke off.

    It tells in order, and comes back to the door (2 s later) or ends its turn after that.
    """
    coming_back = asyncio.create_task(grant.asked_again.wait())
    waited_for: set[asyncio.Future[Any]] = {prompting, coming_back}
    try:
        await asyncio.wait(waited_for, timeout=_REST_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        coming_back.cancel()


def _failed(failure: ServiceError, run: Run) -> events.RunFailed:
    return events.RunFailed(code=failure.code, message=failure.sentence(run.start.language))


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel *task* and wait until its cleanup is through; its result stays in it."""
    task.cancel()
    await asyncio.wait({task})
