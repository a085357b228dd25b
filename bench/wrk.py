"""Load by wrk: the same request over and over, on connections that stay open."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.tools import Tool

_CONNECTIONS = 32
_TO_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_REQUESTS = re.compile(r"(\d+) requests in")
_P99 = re.compile(r"99%\s+([\d.]+)(us|ms|s|m)\b")
_FAULTS = re.compile(r"(Non-2xx or 3xx responses: \d+|Socket errors: .*)")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of it."""

    requests: int
    p99_ms: float


async def load(tool: Tool, url: str, headers: Mapping[str, str], *, seconds: int) -> Load:
    """Ask for *url* for so long.

    Raises:
        RuntimeError: Not every answer was a good one.
    """
    fields = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    process = await asyncio.create_subprocess_exec(
        *(str(tool.program), "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--latency"),
        *(*fields, url),
        env={**os.environ, **tool.environment},
        stdout=asyncio.subprocess.PIPE,
    )
    said = (await process.communicate())[0].decode()
    requests, p99 = _REQUESTS.search(said), _P99.search(said)
    if requests is None or p99 is None:
        raise RuntimeError(f"wrk said: {said}")
    if fault := _FAULTS.search(said):
        raise RuntimeError(f"{url}: {fault[1]}")
    return Load(requests=int(requests[1]), p99_ms=float(p99[1]) * _TO_MS[p99[2]])
