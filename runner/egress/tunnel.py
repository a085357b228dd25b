"""`CONNECT` through a sandbox's door: the listed host's own TLS, byte for byte.

The name is resolved on the runner's side, every address is checked, and the connection goes to
one of the checked addresses: a name that is answered differently a moment later (DNS rebinding)
changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import structlog

from runner.egress.policy import EgressDenied, is_public

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable, Sequence

    from runner.egress.policy import EgressPolicy, Target

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MAX_HEAD_BYTES = 8192
_HEAD_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 10.0
_IDLE_TIMEOUT_S = 300.0
_CHUNK_BYTES = 1 << 16


class Resolve(Protocol):
    """Turns a name into addresses."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of *host*.

        Raises:
            OSError: There are none.
        """


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return what the system's resolver says."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class Egress:
    """What sandboxes may reach, and how.

    Attributes:
        policy: The operator's list.
        resolve: Looks names up.
        may_reach: Whether an address may be connected to.
    """

    policy: EgressPolicy
    resolve: Resolve = resolve
    may_reach: Callable[[str], bool] = is_public

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one `CONNECT` and pass bytes both ways until both sides are done."""
        try:
            target = self.policy.target_of(await _authority(reader))
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                there = await self._connect(target)
        except EgressDenied as exc:
            log.warning("egress_denied", reason=str(exc))
            await _refuse(writer, HTTPStatus.FORBIDDEN, str(exc))
            return
        except (OSError, TimeoutError) as exc:
            log.info("egress_failed", error=type(exc).__name__)
            await _refuse(writer, HTTPStatus.BAD_GATEWAY, "the host can't be reached")
            return
        log.info("egress_opened", host=target.host, port=target.port)
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            sent, received = await asyncio.gather(
                _pass_on(reader, there[1]), _pass_on(there[0], writer)
            )
            log.info("egress_closed", host=target.host, sent_bytes=sent, received_bytes=received)
        finally:
            there[1].close()

    async def _connect(self, target: Target) -> tuple[StreamReader, StreamWriter]:
        """Return a connection to the first of *target*'s addresses that takes one.

        Raises:
            EgressDenied: One of its addresses is none that may be reached. All have to be: a
                name with a private address among its public ones is up to something.
            OSError: None takes one.
        """
        addresses = await self.resolve(target.host, target.port)
        if not addresses or not all(self.may_reach(address) for address in addresses):
            raise EgressDenied("this host's address is not a public one")
        failure = OSError("no address")
        for address in addresses:
            try:
                return await asyncio.open_connection(address, target.port)
            except OSError as exc:
                failure = exc
        raise failure


async def _authority(reader: StreamReader) -> str:
    """Read a `CONNECT` request's head and return its target.

    Raises:
        EgressDenied: It is none, or too long, or does not come.
    """
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as exc:
        raise EgressDenied("the request is not whole") from exc
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    method, _, rest = line.partition(" ")
    authority, _, version = rest.partition(" ")
    if len(head) > _MAX_HEAD_BYTES or method != "CONNECT" or not version.startswith("HTTP/1."):
        raise EgressDenied("the request is no CONNECT")
    return authority


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> int:
    """Copy until the end, tell the other side of the end, return how many bytes it were."""
    count = 0
    with suppress(ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(_IDLE_TIMEOUT_S):
                data = await reader.read(_CHUNK_BYTES)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            count += len(data)
    with suppress(OSError, RuntimeError):
        writer.write_eof()
    return count


async def _refuse(writer: StreamWriter, status: HTTPStatus, reason: str) -> None:
    body = reason.encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with suppress(ConnectionError):
        writer.write(head.encode() + body)
        await writer.drain()
