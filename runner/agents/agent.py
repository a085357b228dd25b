"""OpenCode, booted in its sandbox: lent to one run, prompted once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from runner.acp.connection import AgentGone, AgentRefused
from runner.acp.translate import Translator
from runner.contract.problems import RunFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from runner.acp.connection import Connection
    from runner.acp.questions import AskPermission, Questions
    from runner.agents.opencode import AgentModel
    from runner.contract.events import RunEvent
    from runner.credential_proxy.door import Door
    from runner.credential_proxy.grants import Grant
    from runner.sandbox.base import Sandbox

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BEGIN_TIMEOUT_S = 5.0
_ATTEMPTS = 2
"""A warm agent may have fallen ill unnoticed; then the run gets another."""


class Agent:
    """OpenCode with a session of its own; serves one run."""

    def __init__(
        self, connection: Connection, session_id: str, sandbox: Sandbox, questions: Questions
    ) -> None:
        self._connection = connection
        self._sandbox = sandbox
        self._questions = questions
        self.session_id = session_id

    async def prompt(
        self,
        text: str,
        on_event: Callable[[RunEvent], Awaitable[None]],
        on_permission: AskPermission,
    ) -> str:
        """Send *text*, give every event to *on_event*, return why the turn ended.

        *on_permission* is asked whether OpenCode may.

        Raises:
            RunFailure: OpenCode ended, or answered with an error.
        """
        translator = Translator()

        async def on_notification(method: str, params: dict[str, Any]) -> None:
            if method == "session/update" and params.get("sessionId") == self.session_id:
                for event in translator.translate(params):
                    await on_event(event)

        self._connection.listen(on_notification)
        self._questions.on_permission = on_permission
        async with limits_told(self._sandbox):
            result = await ask(self._connection, "session/prompt", prompt(self.session_id, text))
        return str(result.get("stopReason", "end_turn"))


class BootedAgent:
    """OpenCode that belongs to nobody yet; its door lets nothing through."""

    def __init__(
        self,
        connection: Connection,
        sandbox: Sandbox,
        door: Door,
        questions: Questions,
        session: Session,
    ) -> None:
        self._connection = connection
        self._sandbox = sandbox
        self._door = door
        self._questions = questions
        self._session = session

    @property
    def is_well(self) -> bool:
        """Whether it can still be spoken to."""
        return self._connection.is_open and self._sandbox.process.returncode is None

    @asynccontextmanager
    async def begin(self, model: AgentModel, grant: Grant) -> AsyncIterator[Agent]:
        """Bind it to a run while the block runs: its door to *grant*, its session to *model*.

        It serves one run; end it afterwards.

        Raises:
            RunFailure: OpenCode ended, stalled, or answered with an error.
        """
        with self._door.granted(grant):
            try:
                async with limits_told(self._sandbox), asyncio.timeout(_BEGIN_TIMEOUT_S):
                    await self._session.choose(model)
            except TimeoutError as exc:
                raise RunFailure("agent-stalled") from exc
            yield Agent(self._connection, self._session.id, self._sandbox, self._questions)


class AgentSource(Protocol):
    """Where booted agents come from."""

    def lend(self) -> AbstractAsyncContextManager[BootedAgent]:
        """Yield an agent that nobody had before; on exit nothing of it is left.

        Raises:
            OpenCodeUnavailable, SandboxUnavailable: It can't be started.
            RunFailure: It ended or stalled while booting.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFactory:
    """Gives each run its agent, warm or cold."""

    source: AgentSource
    binary: Callable[[], Path]

    @asynccontextmanager
    async def boot(self, model: AgentModel, grant: Grant) -> AsyncIterator[Agent]:
        """Yield an agent of the run's own; on exit nothing of it is left.

        Raises:
            OpenCodeUnavailable, SandboxUnavailable: It can't be started.
            RunFailure: It ended or stalled while booting.
        """
        async with AsyncExitStack() as stack:
            yield await self._begun(stack, model, grant)

    async def _begun(self, stack: AsyncExitStack, model: AgentModel, grant: Grant) -> Agent:
        for attempt in range(1, _ATTEMPTS + 1):
            async with AsyncExitStack() as trial:
                booted = await trial.enter_async_context(self.source.lend())
                try:
                    agent = await trial.enter_async_context(booted.begin(model, grant))
                except RunFailure as failure:
                    if attempt == _ATTEMPTS:
                        raise
                    log.warning("agent_did_not_begin", code=failure.code)
                else:
                    await stack.enter_async_context(trial.pop_all())
                    return agent
        raise RunFailure("agent-crashed")


@asynccontextmanager
async def limits_told(sandbox: Sandbox) -> AsyncIterator[None]:
    """Turn OpenCode's sudden end into the limit that it ran into, if it was one.

    Raises:
        RunFailure: With the limit's own code.
    """
    try:
        yield
    except RunFailure as failure:
        if failure.code == "agent-crashed" and (verdict := await sandbox.verdict()) is not None:
            raise RunFailure(verdict.code, **verdict.params) from failure
        raise


class Session:
    """A session that nobody has prompted yet."""

    def __init__(self, connection: Connection, session_id: str) -> None:
        self._connection = connection
        self._mode: str | None = None
        self.id = session_id

    async def choose(self, model: AgentModel) -> None:
        """Have it work with *model*; asks OpenCode in any case, which shows that it listens.

        Raises:
            RunFailure: OpenCode ended, or refused.
        """
        if model.mode != self._mode:  # first: OpenCode's agents may have models of their own
            await self._set("mode", model.mode)
            self._mode = model.mode
        await self._set("model", model.id)

    async def _set(self, option: str, value: str) -> None:
        choice = {"sessionId": self.id, "configId": option, "value": value}
        await ask(self._connection, "session/set_config_option", choice)


async def open_session(connection: Connection, sandbox: Sandbox, model: AgentModel) -> Session:
    """Return a new session that works with *model*.

    Raises:
        RunFailure: OpenCode ended, or refused.
    """
    params = {"cwd": str(sandbox.inside.workspace), "mcpServers": []}
    made = await ask(connection, "session/new", params)
    session = Session(connection, str(made.get("sessionId", "")))
    await session.choose(model)
    return session


def prompt(session_id: str, text: str) -> dict[str, Any]:
    """Return the parameters of `session/prompt`."""
    return {"sessionId": session_id, "prompt": [{"type": "text", "text": text}]}


async def ask(connection: Connection, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return OpenCode's answer.

    Raises:
        RunFailure: It ended, or answered with an error.
    """
    try:
        return await connection.request(method, params)
    except AgentGone as exc:
        raise RunFailure("agent-crashed") from exc
    except AgentRefused as exc:
        raise RunFailure("agent-error", reason=exc.text[:300]) from exc
