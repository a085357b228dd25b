"""Boots OpenCode up to where a prompt is answered at once."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import structlog

from runner.acp.connection import Connection, connect
from runner.acp.questions import Questions
from runner.agents import opencode
from runner.agents.agent import BootedAgent, ask, limits_told, open_session, prompt
from runner.agents.history import forget_session
from runner.agents.planted import out_of_sight
from runner.contract.problems import RunFailure
from runner.credential_proxy.door import BASE_PATH, open_door
from runner.credential_proxy.grants import Grant
from runner.credential_proxy.scripted import WarmUp
from runner.plumbing.cleanup import finish
from runner.sandbox.base import SandboxSpec

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from runner.agents.directories import RunDirectories
    from runner.agents.opencode import AgentModel
    from runner.contract.events import RunEvent
    from runner.credential_proxy.door import Door
    from runner.egress.tunnel import Egress
    from runner.sandbox.base import Limits, Sandbox, SandboxBackend

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BOOT_TIMEOUT_S = 60.0
_PROTOCOL_VERSION = 1
_KEPT_STDERR_BYTES = 4096
_THROW_AWAY_PROMPT = "."
_PRACTICE_PROMPTS = 3
"""So many more make OpenCode's JavaScript engine take a third less of CPU for a first text."""

IsWanted: TypeAlias = "Callable[[], bool]"
"""Says whether somebody waits for the agent already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentBooter:
    """Boots agents; holds what they have in common.

    Attributes:
        models: All that a run may choose, the likeliest first.
    """

    backend: SandboxBackend
    directories: RunDirectories
    binary: Callable[[], Path]
    programs: tuple[Path, ...]
    limits: Limits
    models: tuple[AgentModel, ...]
    egress: Egress | None = None

    def lend(self) -> AbstractAsyncContextManager[BootedAgent]:
        """See `AgentSource.lend`: boot one."""
        return self.boot(lambda: True)

    @asynccontextmanager
    async def boot(self, is_wanted: IsWanted) -> AsyncIterator[BootedAgent]:
        """Yield a booted agent that belongs to nobody yet; on exit nothing of it is left.

        Until it *is_wanted*, it practises a little.

        Raises:
            OpenCodeUnavailable, SandboxUnavailable: It can't be started.
            RunFailure: It ended or stalled while booting.
        """
        token = secrets.token_urlsafe(32)
        async with AsyncExitStack() as stack:
            directory = await stack.enter_async_context(self.directories.new())
            planted = await stack.enter_async_context(AsyncExitStack())
            await planted.enter_async_context(out_of_sight(directory))
            sandbox = await stack.enter_async_context(
                self.backend.start(self._spec(directory, token))
            )
            await stack.enter_async_context(_drained(sandbox.process.stderr))
            needed = None if self.backend.door_is_identity else token
            door = await stack.enter_async_context(
                open_door(sandbox.door, token=needed, egress=self.egress)
            )
            reader, writer = sandbox.process.stdout, sandbox.process.stdin
            if reader is None or writer is None:
                raise RunFailure("agent-crashed")
            questions = Questions()
            connection = await stack.enter_async_context(
                connect(reader, writer, on_request=questions.answer)
            )
            try:
                async with limits_told(sandbox), asyncio.timeout(_BOOT_TIMEOUT_S):
                    line = _Line(connection, sandbox, door, directory / "home")
                    await self._warm_up(line, is_wanted)
                    session = await open_session(connection, sandbox, self.models[0])
            except TimeoutError as exc:
                raise RunFailure("agent-stalled") from exc
            await planted.aclose()
            yield BootedAgent(connection, sandbox, door, questions, session)

    async def _warm_up(self, line: _Line, is_wanted: IsWanted) -> None:
        """Have OpenCode do its one-time work, and forget that it did.

        At its first answer OpenCode works for half a second and holds back the pieces that come
        meanwhile; at the first one of another provider it does a part of that again. So each
        provider gets a throw-away prompt, which the door answers itself.
        """
        hello = {"protocolVersion": _PROTOCOL_VERSION, "clientCapabilities": {}}
        await ask(line.connection, "initialize", hello)
        for model in {model.provider: model for model in reversed(self.models)}.values():
            await line.throw_away(model)
        for _ in range(_PRACTICE_PROMPTS):
            if is_wanted():
                break
            await line.throw_away(self.models[0])

    def _spec(self, directory: Path, token: str) -> SandboxSpec:
        password = secrets.token_urlsafe(16)
        return SandboxSpec(
            command=(str(self.binary()), "acp"),
            directory=directory,
            environment=lambda inside: opencode.environment(
                inside,
                self.models,
                token=token,
                server_password=password,
                base_path=BASE_PATH,
                memory_bytes=self.limits.memory_bytes,
                egress=self.egress is not None,
            ),
            limits=self.limits,
            path=self.programs,
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """What it takes to speak with an OpenCode that boots."""

    connection: Connection
    sandbox: Sandbox
    door: Door
    home: Path

    async def throw_away(self, model: AgentModel) -> None:
        """Have OpenCode answer a prompt to *model*, and forget it."""
        grant = Grant(upstream=WarmUp(model.api), model=model.name, tell=_tell_nobody)
        with self.door.granted(grant):
            session = await open_session(self.connection, self.sandbox, model)
            words = prompt(session.id, _THROW_AWAY_PROMPT)
            await ask(self.connection, "session/prompt", words)
            await ask(self.connection, "session/close", {"sessionId": session.id})
        if not await asyncio.to_thread(forget_session, self.home, session.id):
            log.warning("throw_away_session_left")


async def _tell_nobody(_: RunEvent) -> None:
    """Take what a throw-away prompt would tell."""


@asynccontextmanager
async def _drained(stderr: StreamReader | None) -> AsyncIterator[None]:
    """Read *stderr* away while the block runs, so that OpenCode never waits for a reader."""
    if stderr is None:
        yield
        return
    reading = asyncio.create_task(_drain(stderr))
    try:
        yield
    finally:
        reading.cancel()
        await finish(_settled(reading))


async def _drain(stderr: StreamReader) -> None:
    total = 0
    with suppress(ConnectionError):
        while data := await stderr.read(_KEPT_STDERR_BYTES):
            total += len(data)
    if total:
        # Its words may quote the prompt: only their number is logged.
        log.debug("agent_wrote_to_stderr", stderr_bytes=total)


async def _settled(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task}, timeout=1)
