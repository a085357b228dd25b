"""Keeps the local model's server running beside the runner."""

from __future__ import annotations

import asyncio
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from runner.contract.problems import RunFailure
from runner.credential_proxy.door import refusal
from runner.credential_proxy.forward import HttpUpstream, Patience
from runner.models.local_server import weights
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from aiohttp import ClientSession, web

    from runner.credential_proxy.grants import Grant
    from runner.credential_proxy.upstreams import Api, Call

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LOAD_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 2.0
_PATIENCE = Patience(first_s=120.0, between_s=60.0)  # callers wait for one of its two slots
_RESTART_DELAY_S = 1.0
_MAX_RESTART_DELAY_S = 60.0


class LocalModel:
    """A small language model on this machine's CPU.

    Attributes:
        key: What its server wants to see, so that nobody else on the host can use it.
    """

    def __init__(self) -> None:
        self.key = SecretStr(secrets.token_urlsafe(24))
        self._address: str | None = None
        self._ready = asyncio.Event()

    async def base_url(self) -> str:
        """Return where it answers; wait while it loads.

        Raises:
            RunFailure: It did not come up in time.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOAD_TIMEOUT_S):
                await self._ready.wait()
        if self._address is None:
            raise RunFailure("provider-unreachable")
        return f"{self._address}/v1"

    @property
    def state(self) -> str:
        """`ok`, or `loading` while it is not up."""
        return "ok" if self._address is not None else "loading"

    async def keep_running(self) -> None:
        """Run the server, and run it again when it ends; forever."""
        delay_s = _RESTART_DELAY_S
        while True:
            async with _server_process() as process:
                if await self._announced(process):
                    delay_s = _RESTART_DELAY_S
                    await process.wait()
                self._address = None
                self._ready.clear()
            log.warning("local_model_ended", retry_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(_MAX_RESTART_DELAY_S, delay_s * 2)

    async def _announced(self, process: Process) -> bool:
        """Give the server its key and wait for its address; False if it didn't come."""
        if process.stdin is None or process.stdout is None:
            return False
        try:
            async with asyncio.timeout(_LOAD_TIMEOUT_S):
                process.stdin.write(self.key.get_secret_value().encode() + b"\n")
                await process.stdin.drain()
                word, _, address = (await process.stdout.readline()).decode().strip().partition(" ")
        except (TimeoutError, ConnectionError):
            return False
        if word != "ready":
            return False
        self._address = address
        self._ready.set()
        log.info("local_model_ready")
        return True


class LocalUpstream:
    """Answers model calls with the local model."""

    api: Api = "chat"

    def __init__(self, http: ClientSession, model: LocalModel) -> None:
        self._http = http
        self._model = model

    async def answer(self, request: web.Request, call: Call, grant: Grant) -> web.StreamResponse:
        """See `Upstream.answer`."""
        try:
            base_url = await self._model.base_url()
        except RunFailure as failure:
            grant.fail(failure)
            return refusal(HTTPStatus.BAD_REQUEST, "the run has ended")
        server = HttpUpstream(
            self._http, base_url=base_url, api="chat", key=self._model.key, patience=_PATIENCE
        )
        return await server.answer(request, call, grant)


def is_installed() -> bool:
    """Whether the packages of the local model are there."""
    return weights() is not None and find_spec("xllamacpp") is not None


@asynccontextmanager
async def local_model() -> AsyncIterator[LocalModel]:
    """Yield the local model and keep its server running while the block runs."""
    model = LocalModel()
    keeping = asyncio.create_task(model.keep_running())
    try:
        yield model
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


@asynccontextmanager
async def _server_process() -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "runner.models.local_server",
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin"},
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        await finish(_end(process))


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_TIMEOUT_S):
                await process.wait()
