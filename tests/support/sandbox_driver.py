"""A runner reduced to its sandboxes: takes scripts on stdin, tells how they went on stdout.

Run as a process of its own, because an attack must meet what a runner has: secrets in memory
and environment, sockets, a neighbour at work. One JSON object a line, both ways. Its arguments:
the directory to work in and, for containers, the socket of a spawner for run directories there.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.sandbox.base import Limits, Sandbox, SandboxBackend, SandboxSpec
from runner.sandbox.bubblewrap import BubblewrapBackend
from runner.sandbox.docker import DockerBackend
from runner.sandbox.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CANARY = "canary-7f3a"
_TIMEOUT_S = 40


async def main() -> None:
    """Serve until stdin ends."""
    base, *spawner = (Path(argument) for argument in sys.argv[1:])
    backend = DockerBackend(spawner[0], base) if spawner else BubblewrapBackend()
    await backend.check()
    async with AsyncExitStack() as stack:
        (base / "tool").mkdir()
        shutil.copy("/usr/bin/true", base / "tool" / "tool")
        (base / "outside").mkdir()
        (base / "outside" / "precious").write_text(CANARY, encoding="utf-8")
        world = _World(base, stack, containers=bool(spawner))
        neighbour = await stack.enter_async_context(
            _sandbox(backend, base / "neighbour", base / "tool", ["cat"], {})
        )
        (base / "neighbour" / "workspace" / "secret").write_text(CANARY, encoding="utf-8")
        await stack.enter_async_context(_served(neighbour.door, b"neighbour"))
        _say({"enforced": dict(backend.enforced(_limits({}))), **world.places})
        while line := await asyncio.to_thread(sys.stdin.readline):
            _say(await _attack(backend, base, neighbour, json.loads(line)))


class _World:
    """What there is on the host to be attacked."""

    def __init__(self, base: Path, stack: AsyncExitStack, *, containers: bool) -> None:
        abstract = f"opencode-attacks-{os.getpid()}"
        names = ("\0" + abstract, str(base / "outside" / "socket"))
        for name in names:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(name)
            listening.listen()
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.places = {
            "pid": os.getpid(),
            "base": str(base),
            "program": "/opt/bin/rg" if containers else "/opt/bin/tool",
            "abstract": abstract,
            "port": tcp.getsockname()[1],
        }


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201


def _limits(wanted: dict[str, Any]) -> Limits:
    usual = {"memory_bytes": 256 << 20, "processes": 64, "cpus": 1.0, "disk_bytes": 64 << 20}
    return Limits(**{**usual, **wanted})


async def _attack(
    backend: SandboxBackend, base: Path, neighbour: Sandbox, request: dict[str, Any]
) -> dict[str, Any]:
    directory = base / "attacker"
    command = ["bash", "-c", request["script"]]
    async with (
        _sandbox(backend, directory, base / "tool", command, request["limits"]) as sandbox,
        _served(sandbox.door, b"own"),
    ):
        assert sandbox.process.stdout
        assert sandbox.process.stderr
        out, err = b"", b"the attack went on until the timeout"
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                out, err = await asyncio.gather(
                    sandbox.process.stdout.read(), sandbox.process.stderr.read()
                )
        verdict = await sandbox.verdict()
        answer = {
            "out": out.decode(errors="replace"),
            "err": err.decode(errors="replace"),
            "verdict": verdict.code if verdict else None,
            "neighbour": await _echo(neighbour),
        }
    return answer | {
        "left": directory.exists(),
        "precious": (base / "outside" / "precious").read_text(encoding="utf-8"),
        "outside": sorted(path.name for path in (base / "outside").iterdir()),
        "strays": _strays(request["mark"]),
    }


@asynccontextmanager
async def _sandbox(
    backend: SandboxBackend,
    directory: Path,
    tools: Path,
    command: list[str],
    limits: dict[str, Any],
) -> AsyncIterator[Sandbox]:
    directory.mkdir(mode=0o711)
    try:
        for name in ("home", "workspace", "tmp"):
            (directory / name).mkdir(mode=0o700)
        spec = SandboxSpec(
            command=(f"/usr/bin/{command[0]}", *command[1:]),
            directory=directory,
            environment=lambda inside: {"HOME": str(inside.home)},
            limits=_limits(limits),
            path=[tools],
        )
        async with backend.start(spec) as sandbox:
            yield sandbox
    finally:
        await remove_tree(directory)


@asynccontextmanager
async def _served(door: socket.socket, answer: bytes) -> AsyncIterator[None]:
    async def on_connection(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(on_connection, sock=door)
    try:
        yield
    finally:
        server.close()


async def _echo(neighbour: Sandbox) -> str:
    """What the neighbour, a `cat`, answers within a second or two."""
    assert neighbour.process.stdin
    assert neighbour.process.stdout
    neighbour.process.stdin.write(b"still here\n")
    async with asyncio.timeout(5):
        return (await neighbour.process.stdout.readline()).decode().strip()


def _strays(mark: str) -> list[int]:
    """Processes that have *mark* in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    asyncio.run(main())
