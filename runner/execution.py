"""One run, carried out: wait for a slot, boot OpenCode, prompt it, watch it, end it."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from runner.contract import events
from runner.contract.problems import RunFailure, ServiceError
from runner.credential_proxy.grants import Grant
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.acp.permissions import Approvals
    from runner.agents.agent import Agent, AgentFactory
    from runner.agents.opencode import AgentModel
    from runner.contract.events import RunEvent
    from runner.contract.requests import StartRun
    from runner.metrics import RunMeter
    from runner.models.catalogue import Choice
    from runner.run_log.log import RunLog
    from runner.scheduler.scheduler import Ticket

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_REST_TIMEOUT_S = 5.0
_SHUTDOWN = "shutdown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a run may take, and how much it may say.

    Attributes:
        run_s: From its slot to its end.
        idle_s: Without a sign of the provider or a tool.
        permission_s: For a person to answer a permission request.
        attach_s: Without a reader, where it is attached.
        output_bytes: Of text and tool output.
    """

    run_s: float
    idle_s: float
    permission_s: float
    attach_s: float
    output_bytes: int


@dataclass(kw_only=True, slots=True, eq=False)
class Run:
    """One run, from admission to its terminal event.

    Attributes:
        attached: Whether it ends when it has had no reader for `attach_s`.
        accepted, last_event: Monotonic times.
        stopped_by: Set by `stop`: who wants it to end.
    """

    start: StartRun
    choice: Choice
    model: AgentModel
    ticket: Ticket
    log: RunLog
    attached: bool
    attach_s: float
    meter: RunMeter
    accepted: float = field(default_factory=time.monotonic)
    last_event: float = field(default_factory=time.monotonic)
    stopped_by: str | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    approvals: Approvals = field(init=False)
    _readers: int = 0
    _leaving: asyncio.TimerHandle | None = None

    async def tell(self, event: RunEvent) -> None:
        """Put *event* into the log."""
        self.log.append(event)
        self.meter.take(event)
        self.last_event = time.monotonic()

    def stop(self, by: str) -> None:
        """Have the run end in `run.cancelled`; the first word counts."""
        if self.stopped_by is None:
            self.stopped_by = by
            self.stopped.set()

    def repeated_by(self, start: StartRun, choice: Choice) -> bool:
        """Whether *start* asks for what this run, which goes on, does."""
        return (
            self.stopped_by is None
            and not self.log.has_ended
            and (self.start.subject, self.choice.id) == (start.subject, choice.id)
            and (self.start.prompt, self.start.permission) == (start.prompt, start.permission)
        )

    @property
    def is_left(self) -> bool:
        """Whether it ends soon unless a reader comes."""
        return self._leaving is not None

    @contextmanager
    def read(self) -> Iterator[None]:
        """Have a reader while the block runs."""
        self._readers += 1
        self.look_for_readers()
        try:
            yield
        finally:
            self._readers -= 1
            self.look_for_readers()

    def look_for_readers(self) -> None:
        """Start, or stop, the time after which an attached run without readers ends."""
        self.close()
        if self.attached and not self._readers and not self.log.has_ended:
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(self.attach_s, self.stop, "disconnect")

    def close(self) -> None:
        """Stop that time."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None


class Execution:
    """Carries out runs."""

    def __init__(self, *, agents: AgentFactory, patience: Patience) -> None:
        self._agents = agents
        self._patience = patience

    async def terminal_event(self, run: Run) -> RunEvent:
        """Carry out *run* and return its terminal event; nothing of it is left then."""
        try:
            finished = await self._perform(run)
        except ServiceError as failure:
            return _failed(failure, run)
        except Exception as exc:
            log.exception("run_crashed", error=type(exc).__name__)
            return _failed(ServiceError(), run)
        return finished or events.RunCancelled(by=run.stopped_by or _SHUTDOWN)

    async def _perform(self, run: Run) -> events.RunFinished | None:
        """Wait for a slot, run the agent, return how it ended; None when it was stopped.

        Raises:
            ServiceError: The run failed.
        """
        choice = run.choice
        grant = Grant(
            upstream=choice.upstream, model=choice.model.name, tell=run.tell, price=choice.price
        )
        prompting = asyncio.create_task(self._prompt(run, grant))
        stopping = asyncio.create_task(run.stopped.wait())
        waited_for: set[asyncio.Future[Any]] = {prompting, stopping, grant.failure}
        try:
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            if grant.failed_midway and not stopping.done():
                await _told_the_rest(prompting, grant, stopping)
        finally:
            stopping.cancel()
            prompting_done = prompting.done()
            await finish(_ended(prompting))
        if grant.failure.done():
            raise grant.failure.result()
        if not prompting_done:
            return None
        return events.RunFinished(
            stop_reason=prompting.result(),
            usage=grant.usage,
            duration_s=round(time.monotonic() - run.accepted, 3),
        )

    async def _prompt(self, run: Run, grant: Grant) -> str:
        """Return why OpenCode stopped."""
        async for position in run.ticket.positions():
            await run.tell(events.RunQueued(position=position))
        run.log.got_slot()
        try:
            async with asyncio.timeout(self._patience.run_s):
                return await self._with_agent(run, grant)
        except TimeoutError as exc:
            raise RunFailure("timeout", limit_s=self._patience.run_s) from exc

    async def _with_agent(self, run: Run, grant: Grant) -> str:
        queued_s = round(time.monotonic() - run.accepted, 3)
        booting_since = time.monotonic()
        async with self._agents.boot(run.model, grant) as agent:
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
            answering = asyncio.create_task(self._answer(agent, run, grant))
            try:
                return await self._unless_silent(answering, run, grant)
            finally:
                await finish(_ended(answering))

    async def _answer(self, agent: Agent, run: Run, grant: Grant) -> str:
        output = _Output()
        limit_bytes = self._patience.output_bytes

        async def on_event(event: RunEvent) -> None:
            await run.tell(event)
            if output.with_event(event) > limit_bytes:
                grant.fail(RunFailure("output-limit", limit_bytes=limit_bytes))

        return await agent.prompt(run.start.prompt, on_event, run.approvals.ask)

    async def _unless_silent(self, answering: asyncio.Task[str], run: Run, grant: Grant) -> str:
        """Return what *answering* returns. While a person is asked, silence doesn't count.

        Raises:
            RunFailure: Neither provider nor tool gave a sign for too long.
        """
        idle_s = self._patience.idle_s
        grant.sign_of_life()
        while True:
            left_s = idle_s
            if not run.approvals.is_waiting:
                left_s -= time.monotonic() - max(run.last_event, grant.last_sign)
            if left_s <= 0:
                raise RunFailure("idle-timeout", limit_s=idle_s, phase=run.log.state.phase)
            done, _ = await asyncio.wait({answering}, timeout=left_s)
            if done:
                return answering.result()


class _Output:
    """How much a run has said. A tool's output comes whole each time: only its growth counts."""

    def __init__(self) -> None:
        self._bytes = 0
        self._of_tool: dict[str, int] = {}

    def with_event(self, event: RunEvent) -> int:
        """Return the size of all output, *event*'s included."""
        match event:
            case events.TextDelta() | events.ThoughtDelta():
                self._bytes += len(event.text.encode())
            case events.ToolUpdated(output=str(output)):
                before, now = self._of_tool.get(event.id, 0), len(output.encode())
                self._of_tool[event.id] = max(before, now)
                self._bytes += max(0, now - before)
            case _:
                pass
        return self._bytes


async def _told_the_rest(
    prompting: asyncio.Task[str], grant: Grant, stopping: asyncio.Task[Any]
) -> None:
    """Wait, bounded, until OpenCode has told the text it had when the provider broke off.

    It tells in order, and comes back to the door (2 s later) or ends its turn after that.
    """
    coming_back = asyncio.create_task(grant.asked_again.wait())
    waited_for: set[asyncio.Future[Any]] = {prompting, coming_back, stopping}
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
