"""The use case: accept runs, carry them out, let many read them, end them.

A run is a task of the service, not of a connection: its readers come and go, and what they read
is its log.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from runner.acp.permissions import Approvals, policy_for
from runner.contract import events
from runner.contract.problems import (
    AlreadyResolved,
    IdempotencyConflict,
    NotFound,
    RunnerRestarting,
    RunnerUnavailable,
)
from runner.contract.requests import RunAccepted, RunState
from runner.execution import Run
from runner.plumbing.cleanup import finish
from runner.run_log.meta import RunMeta
from runner.run_log.progress import timestamp
from runner.run_log.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator

    from runner.agents.agent import AgentFactory
    from runner.contract.requests import Permission, StartRun
    from runner.execution import Execution, Patience
    from runner.metrics import Metrics
    from runner.models.catalogue import Catalogue, Choice
    from runner.run_log.log import RunLog
    from runner.run_log.store import RunLogs
    from runner.scheduler.scheduler import Scheduler

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_STOPPED_WAIT_S = 5.0
_LATE_WAIT_S = 5.0
_DISK_RETRY_AFTER_S = 30.0
_RESTART_RETRY_AFTER_S = 5.0


class RunService:
    """Accepts runs, knows them, ends them. Use `open_run_service`."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        scheduler: Scheduler,
        agents: AgentFactory,
        execution: Execution,
        logs: RunLogs,
        patience: Patience,
        permission: Permission,
        hash_key: bytes,
        metrics: Metrics,
    ) -> None:
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._agents = agents
        self._execution = execution
        self._logs = logs
        self._patience = patience
        self._permission = permission
        self._metrics = metrics
        self._hash_key = hashlib.sha256(hash_key).digest()
        self._live: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self.is_draining = False

    def start(self, start: StartRun) -> RunAccepted:
        """Accept a run, or name the one that was asked for before.

        Raises:
            IdempotencyConflict: The key, or the run's id, was used for something else.
            NotFound: It only wants to come back to a run, and there is none.
            InvalidField: More permission than the operator allows.
            ModelNotAllowed, KeyRequired: The model can't be had.
            OpenCodeUnavailable: OpenCode is not installed.
            QueueFull: There is no room.
            RunnerRestarting: The service drains.
            RunnerUnavailable: The disk is full.
        """
        body = self._hash(start.prompt, start.model or "", start.permission or "")
        key = start.idempotency_key
        idempotency = None if key is None else self._hash(key)
        if (known := self._known(start, body, idempotency)) is not None:
            return self._join(known.state.run_id, start)
        if start.come_back:
            raise NotFound
        policy = policy_for(self._permission, start.permission)
        choice = self._catalogue.choose(start.model, start.key)
        self._agents.binary()
        if (double := self._double(start, choice)) is not None:
            return self._join(double, start)
        if self.is_draining:
            raise RunnerRestarting(retry_after_s=_RESTART_RETRY_AFTER_S)
        with ExitStack() as admission:
            ticket = admission.enter_context(self._scheduler.admission(start.subject, body))
            state = RunState(
                run_id=start.run_id,
                subject=start.subject,
                status="queued",
                phase="queued",
                model=choice.id,
                created_at=timestamp(datetime.now(UTC)),
            )
            run_log = self._create_log(
                RunMeta(state=state, language=start.language, body=body, idempotency=idempotency)
            )
            run = Run(
                start=start,
                choice=choice,
                model=dataclasses.replace(choice.model, asks_first=policy.asks_first),
                ticket=ticket,
                log=run_log,
                attached=start.attached,
                attach_s=self._patience.attach_s,
                meter=self._metrics.of_run(),
            )
            run.approvals = Approvals(
                answer=policy.answer, timeout_s=self._patience.permission_s, tell=run.tell
            )
            self._begin(run, admission.pop_all())
        return RunAccepted(run_id=start.run_id)

    def state(self, run_id: str, subject: str | None) -> RunState:
        """Return the state of *subject*'s run.

        Raises:
            NotFound: There is none, or it is another's.
        """
        return self._log(run_id, subject).state

    def states(
        self, *, subject: str | None = None, run_ids: Collection[str] | None = None
    ) -> list[RunState]:
        """Return the states of *subject*'s runs, or of *run_ids*, newest first."""
        return [known.state for known in self._logs.find(subject=subject, run_ids=run_ids)]

    def cancel(self, run_id: str, subject: str | None) -> RunState:
        """Have a run end, if it hasn't; return its state, which may not show that yet.

        Raises:
            NotFound: There is none, or it is another's.
        """
        known = self._log(run_id, subject)
        if run_id in self._live:
            self._live[run_id][0].stop("user")
        return known.state

    def answer(self, run_id: str, subject: str | None, number: str, option: str) -> None:
        """Answer a permission request; see `Approvals.answer` for the errors.

        Raises:
            NotFound: There is no such run or request, or it is another's.
            AlreadyResolved: It has been answered, or the run has ended.
        """
        self._log(run_id, subject)
        if run_id not in self._live:
            raise AlreadyResolved
        self._live[run_id][0].approvals.answer(number, option)

    @contextmanager
    def reading(
        self, run_id: str, subject: str | None, *, after: int | None, heartbeat_s: float
    ) -> Iterator[AsyncGenerator[bytes, None]]:
        """Yield a run's events behind number *after* as bytes; see `LogReader.follow`.

        An attached run knows that somebody reads it while the block runs.

        Raises:
            NotFound: There is none, or it is another's.
        """
        with ExitStack() as stack:
            reader = stack.enter_context(open_reader(self._log(run_id, subject)))
            if run_id in self._live:
                stack.enter_context(self._live[run_id][0].read())
            yield reader.follow(after=after, heartbeat_s=heartbeat_s)

    async def drain(self, *, within_s: float, cut_short: asyncio.Event) -> None:
        """Take no more runs; wait until those there are have ended, or for *cut_short*."""
        self.is_draining = True
        tasks = {task for _, task in self._live.values()}
        if not tasks or not within_s:
            return
        log.info("runner_draining", runs=len(tasks), within_s=within_s)
        waits = {
            asyncio.ensure_future(asyncio.wait(tasks)),
            asyncio.ensure_future(cut_short.wait()),
        }
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        log.info("runner_drained", left=len(self._live))

    async def stop_all(self) -> None:
        """End every run with `run.cancelled{by: shutdown}`; wait, bounded, until they are told."""
        tasks = {task for _, task in self._live.values()}
        for run, _ in self._live.values():
            run.stop("shutdown")
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_STOPPED_WAIT_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_LATE_WAIT_S)

    def _begin(self, run: Run, admission: ExitStack) -> None:
        run_id = run.start.run_id
        with structlog.contextvars.bound_contextvars(run_id=run_id, user_id=run.start.subject):
            log.info("run_queued", model=run.choice.id, waiting=self._scheduler.waiting)
            task = asyncio.create_task(self._work(run), name=f"run {run_id}")
        self._live[run_id] = run, task
        task.add_done_callback(lambda _: self._forget(run_id, admission))
        run.look_for_readers()

    async def _work(self, run: Run) -> None:
        """Carry out *run* and tell its end, whatever it is."""
        terminal: events.RunEvent = events.RunCancelled(by="shutdown")
        try:
            terminal = await self._execution.terminal_event(run)
        finally:
            phase = run.log.state.phase
            await run.tell(terminal)
            log.info(
                "run_finished",
                outcome=getattr(terminal, "code", terminal.type),
                phase=phase,
                model=run.choice.id,
                duration_s=round(time.monotonic() - run.accepted, 3),
            )

    def _forget(self, run_id: str, admission: ExitStack) -> None:
        run, _ = self._live.pop(run_id)
        run.close()
        admission.close()

    def _known(self, start: StartRun, body: str, idempotency: str | None) -> RunLog | None:
        """Return the log of the same request made before.

        Raises:
            IdempotencyConflict: Its key, or its id, belongs to another request.
        """
        known = self._logs.get(start.run_id)
        if known is None and idempotency is not None:
            known = self._logs.of_key(start.subject, idempotency)
        if known is None and start.come_back:
            same = [it for it in self._logs.find(subject=start.subject) if it.meta.body == body]
            # Of several, one that has just lost its reader: whoever still reads needs no return.
            known = next(filter(self._is_left, same), next(iter(same), None))
        if known is None:
            return None
        if known.meta.body != body or known.state.subject != start.subject:
            raise IdempotencyConflict
        return known

    def _is_left(self, known: RunLog) -> bool:
        live = self._live.get(known.state.run_id)
        return live is not None and live[0].is_left

    def _double(self, start: StartRun, choice: Choice) -> str | None:
        """Return the id of a live run that *start* most likely repeats: a double click."""
        if start.idempotency_key is not None or start.join_within_s is None:
            return None
        since = time.monotonic() - start.join_within_s
        for run_id, (run, _) in reversed(self._live.items()):
            if run.accepted >= since and run.repeated_by(start, choice):
                return run_id
        return None

    def _join(self, run_id: str, start: StartRun) -> RunAccepted:
        """Name a run that is there; who joins it detached keeps it alive."""
        if run_id in self._live:
            run, _ = self._live[run_id]
            run.attached = run.attached and start.attached
            run.look_for_readers()
        return RunAccepted(run_id=run_id, joined=True)

    def _create_log(self, meta: RunMeta) -> RunLog:
        try:
            return self._logs.create(meta)
        except OSError as exc:
            log.error("run_log_not_made", errno=exc.errno)  # noqa: TRY400 - the reason is all
            raise RunnerUnavailable(retry_after_s=_DISK_RETRY_AFTER_S) from exc

    def _log(self, run_id: str, subject: str | None) -> RunLog:
        known = self._logs.get(run_id)
        if known is None or known.state.subject != subject:
            raise NotFound
        return known

    def _hash(self, *parts: str) -> str:
        """Return a keyed hash: from what is on disk nobody can try out prompts."""
        hashed = hashlib.blake2b(key=self._hash_key, digest_size=32)
        for part in parts:
            data = part.encode()
            hashed.update(len(data).to_bytes(8, "big") + data)
        return hashed.hexdigest()


@asynccontextmanager
async def open_run_service(service: RunService) -> AsyncIterator[RunService]:
    """Yield *service*; on exit none of its runs goes on."""
    try:
        yield service
    finally:
        await finish(service.stop_all())
