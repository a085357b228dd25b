"""One OpenCode, booted in its sandbox and ready for a prompt."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from runner.acp.connection import AgentGone, AgentRefused, MethodNotFound, connect
from runner.acp.permissions import decide
from runner.acp.translate import Translator, usage_of
from runner.agents import opencode
from runner.agents.planted import out_of_sight
from runner.contract.problems import RunFailure
from runner.credential_proxy.door import BASE_PATH, open_door
from runner.credential_proxy.scripted import WarmUp
from runner.plumbing.cleanup import finish
from runner.sandbox.base import SandboxSpec

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from runner.acp.connection import Connection
    from runner.agents.directories import RunDirectories
    from runner.agents.opencode import AgentModel
    from runner.contract.events import RunEvent, Usage
    from runner.credential_proxy.grants import Grant
    from runner.egress.tunnel import Egress
    from runner.sandbox.base import Inside, Limits, Sandbox, SandboxBackend

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BOOT_TIMEOUT_S = 60.0
_PROTOCOL_VERSION = 1
_KEPT_STDERR_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a prompt ended."""

    stop_reason: str
    usage: Usage


class Agent:
    """OpenCode with a session of its own; serves one run."""

    def __init__(self, connection: Connection, session_id: str, sandbox: Sandbox) -> None:
        self._connection = connection
        self._sandbox = sandbox
        self.session_id = session_id

    async def prompt(self, text: str, on_event: Callable[[RunEvent], Awaitable[None]]) -> Outcome:
        """Send *text*, give every event to *on_event*, return how the turn ended.

        Raises:
            RunFailure: OpenCode ended, or answered with an error.
        """
        translator = Translator()

        async def on_notification(method: str, params: dict[str, Any]) -> None:
            if method == "session/update" and params.get("sessionId") == self.session_id:
                for event in translator.translate(params):
                    await on_event(event)

        self._connection.listen(on_notification)
        async with _limits_told(self._sandbox):
            result = await _ask(self._connection, "session/prompt", _prompt(self.session_id, text))
        return Outcome(
            stop_reason=str(result.get("stopReason", "end_turn")), usage=usage_of(result)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFactory:
    """Boots agents; holds what they have in common."""

    backend: SandboxBackend
    directories: RunDirectories
    binary: Callable[[], Path]
    programs: tuple[Path, ...]
    limits: Limits
    egress: Egress | None = None

    @asynccontextmanager
    async def boot(self, model: AgentModel, grant: Grant) -> AsyncIterator[Agent]:
        """Yield a booted agent; on exit nothing of it is left.

        OpenCode does half a second of one-time work at its first answer and holds back the
        pieces that come meanwhile. So a throw-away prompt, answered at the door, goes first.

        Raises:
            OpenCodeUnavailable, SandboxUnavailable: It can't be started.
            RunFailure: It ended or stalled while booting.
        """
        async with AsyncExitStack() as stack:
            directory = await stack.enter_async_context(self.directories.new())
            planted = await stack.enter_async_context(AsyncExitStack())
            await planted.enter_async_context(out_of_sight(directory))
            sandbox = await stack.enter_async_context(
                self.backend.start(self._spec(directory, model, grant))
            )
            await stack.enter_async_context(_drained(sandbox.process.stderr))
            await stack.enter_async_context(
                open_door(
                    sandbox.door,
                    grant,
                    token_needed=not self.backend.door_is_identity,
                    egress=self.egress,
                )
            )
            reader, writer = sandbox.process.stdout, sandbox.process.stdin
            if reader is None or writer is None:
                raise RunFailure("agent-crashed")
            connection = await stack.enter_async_context(
                connect(reader, writer, on_request=_answer)
            )
            agent = await self._ready(connection, sandbox, grant)
            await planted.aclose()
            yield agent

    async def _ready(self, connection: Connection, sandbox: Sandbox, grant: Grant) -> Agent:
        real_upstream = grant.upstream
        grant.upstream = WarmUp(real_upstream.api)
        try:
            async with _limits_told(sandbox), asyncio.timeout(_BOOT_TIMEOUT_S):
                await _ask(
                    connection,
                    "initialize",
                    {"protocolVersion": _PROTOCOL_VERSION, "clientCapabilities": {}},
                )
                warm_up = await _new_session(connection, sandbox.inside)
                await _ask(connection, "session/prompt", _prompt(warm_up, "."))
                session_id = await _new_session(connection, sandbox.inside)
        except TimeoutError as exc:
            raise RunFailure("agent-stalled") from exc
        finally:
            grant.upstream = real_upstream
        return Agent(connection, session_id, sandbox)

    def _spec(self, directory: Path, model: AgentModel, grant: Grant) -> SandboxSpec:
        password = secrets.token_urlsafe(16)
        return SandboxSpec(
            command=(str(self.binary()), "acp"),
            directory=directory,
            environment=lambda inside: opencode.environment(
                inside,
                model,
                token=grant.token,
                server_password=password,
                base_path=BASE_PATH,
                egress=self.egress is not None,
            ),
            limits=self.limits,
            path=self.programs,
        )


@asynccontextmanager
async def _limits_told(sandbox: Sandbox) -> AsyncIterator[None]:
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


async def _new_session(connection: Connection, inside: Inside) -> str:
    params = {"cwd": str(inside.workspace), "mcpServers": []}
    return str((await _ask(connection, "session/new", params)).get("sessionId", ""))


def _prompt(session_id: str, text: str) -> dict[str, Any]:
    return {"sessionId": session_id, "prompt": [{"type": "text", "text": text}]}


async def _ask(connection: Connection, method: str, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return await connection.request(method, params)
    except AgentGone as exc:
        raise RunFailure("agent-crashed") from exc
    except AgentRefused as exc:
        raise RunFailure("agent-error", reason=exc.text[:300]) from exc


async def _answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Answer what OpenCode asks of its client."""
    if method == "session/request_permission":
        return decide(params, allow=False)
    raise MethodNotFound


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
