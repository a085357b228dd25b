"""The real process, `python -m gateway`, and its workers where it has some."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from tests.support import fake_runner
from tests.support.gateway import FERNET_KEY
from tests.support.pocketbase import ROOT, SUPERUSER_EMAIL, SUPERUSER_PASSWORD
from tests.support.processes import alive, descendants

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Iterable, Mapping

    from aiohttp.connector import AddrInfoType

    from tests.support.pocketbase import RunningPocketBase

_UP_WITHIN_S = 30.0


def environment(pocketbase: RunningPocketBase, runner_url: str, port: int) -> dict[str, str]:
    """Return the settings of a gateway as a process gets them."""
    return {
        "PATH": os.environ["PATH"],
        "GATEWAY_PORT": str(port),
        "DATA_DIR": str(pocketbase.data_dir.parent / "gateway" / str(port)),
        "POCKETBASE_URL": pocketbase.url,
        "RUNNER_URL": runner_url,
        "RUNNER_TOKEN": fake_runner.TOKEN,
        "PB_SUPERUSER_EMAIL": SUPERUSER_EMAIL,
        "PB_SUPERUSER_PASSWORD": SUPERUSER_PASSWORD,
        "KEY_ENCRYPTION_KEYS": FERNET_KEY,
        "KEY_SEALING_KEY_FILE": str(pocketbase.sealing_key_file),
        "GATEWAY_METRICS_PORT": "0",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
    }


@asynccontextmanager
async def started(env: dict[str, str], log: Path) -> AsyncIterator[Process]:
    """Run the process while the block runs."""
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", cwd=ROOT, env=env, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_up(url: str, process: Process) -> None:
    """Wait until the process serves."""
    async with ClientSession() as http, asyncio.timeout(_UP_WITHIN_S):
        while process.returncode is None:
            try:
                async with http.get(f"{url}/test") as response:
                    assert response.status == 200
                    return
            except OSError:
                await asyncio.sleep(0.05)
    raise AssertionError("the gateway ended while starting")


def workers_of(process: Process) -> list[int]:
    """Return the processes that serve for *process*."""
    return alive(descendants(process.pid))


@asynccontextmanager
async def session_with_each(
    url: str, process: Process, *, count: int, headers: Mapping[str, str]
) -> AsyncIterator[dict[int, ClientSession]]:
    """Yield a session with each of *count* workers: whatever it is asked goes to that one.

    A session has one connection, kept open, so ask it one thing at a time.
    """
    async with AsyncExitStack() as stack:
        found: dict[int, ClientSession] = {}
        async with asyncio.timeout(_UP_WITHIN_S):
            while len(found) < count:
                sockets: list[socket.socket] = []
                session = await stack.enter_async_context(_one_connection(url, headers, sockets))
                await _connect(session)
                worker = _server_of(sockets, workers_of(process))
                if worker is None or worker in found:
                    await session.close()
                else:
                    found[worker] = session
        yield found


def _one_connection(
    url: str, headers: Mapping[str, str], sockets: list[socket.socket]
) -> ClientSession:
    """Return a session with one connection, whose socket it adds to *sockets*."""

    def connecting(address: AddrInfoType) -> socket.socket:
        sockets.append(socket.socket(*address[:3]))
        return sockets[-1]

    connector = TCPConnector(limit=1, socket_factory=connecting)
    return ClientSession(
        url, headers=headers, connector=connector, timeout=ClientTimeout(total=_UP_WITHIN_S)
    )


async def _connect(session: ClientSession) -> None:
    with suppress(ClientError):  # to a worker that was just killed
        async with session.get("/test") as response:
            await response.read()


def _server_of(sockets: list[socket.socket], workers: Iterable[int]) -> int | None:
    """Return which worker has the latest connection; None: it is gone."""
    if not sockets or sockets[-1].fileno() < 0:
        return None
    inode = _inode_of_peer(sockets[-1].getsockname()[1])
    return _holder(inode, workers) if inode else None


def _inode_of_peer(port: int) -> str | None:
    """Return the socket whose other end is *port* of this machine."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port:
            return fields[9]
    return None


def _holder(inode: str, pids: Iterable[int]) -> int | None:
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()) == f"socket:[{inode}]":
                    return pid
    return None
