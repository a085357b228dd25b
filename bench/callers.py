"""Callers who never stop: each asks, reads, rests and asks again, and comes back when told to."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.streams import STAMP
from runner.contract.wire import LineDecoder

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_REST_S = (0.0, 2.0)


@dataclass
class Heard:
    """What callers heard for a while.

    Attributes:
        first_s: From a run's slot to its first text.
        delays_s: From the sending of each further piece to its reading.
        ends: How often a request ended how.
        promised_s: How long those were told to stay away who were refused.
        kept, broken: How often one who came back just then was let in, or not.
    """

    first_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    promised_s: list[float] = field(default_factory=list)
    kept: int = 0
    broken: int = 0

    def add(self, other: Heard) -> None:
        """Take over what was heard at another time."""
        self.first_s += other.first_s
        self.delays_s += other.delays_s
        self.ends += other.ends
        self.promised_s += other.promised_s
        self.kept += other.kept
        self.broken += other.broken

    @property
    def kept_share(self) -> float:
        """How many of the promises that came due were kept."""
        due = self.kept + self.broken
        return self.kept / due if due else 1.0


class Callers:
    """Them, and what they hear."""

    def __init__(self, http: ClientSession, *, seed: int) -> None:
        self._http = http
        self._random = random.Random(seed)
        self._heard = Heard()

    def take(self) -> Heard:
        """Return what was heard since the last time."""
        heard, self._heard = self._heard, Heard()
        return heard

    async def call(self, token: str) -> None:
        """Be one of them, until cancelled."""
        while True:
            await asyncio.sleep(self._random.uniform(*_REST_S))
            wait_s = await self._ask(token)
            while wait_s is not None:
                await asyncio.sleep(wait_s)
                wait_s = await self._ask(token)
                self._heard.kept += wait_s is None
                self._heard.broken += wait_s is not None

    async def _ask(self, token: str) -> float | None:
        """Ask once and read to the end; where that is refused, return when to come again."""
        headers = {"Authorization": token, "Accept": "application/x-ndjson"}
        asked = time.monotonic()
        async with self._http.post(
            "/opencode/stream", json={"prompt": "Hi"}, headers=headers
        ) as response:
            if response.status == 503 and "Retry-After" in response.headers:
                wait_s = float(response.headers["Retry-After"])
                self._heard.promised_s.append(wait_s)
                return wait_s
            end = f"status {response.status}"
            if response.status == 200:
                end = await self._read(response, asked)
        self._heard.ends[end] += 1
        return None

    async def _read(self, response: ClientResponse, asked: float) -> str:
        """Take down when the pieces come; return how the run ended."""
        decoder = LineDecoder()
        queued_s, spoke = 0.0, False
        event: dict[str, Any] = {}
        async for data in response.content.iter_any():
            now = time.monotonic_ns()
            for line in decoder.feed(data):
                event = json.loads(line)
                if event["type"] == "run.started":
                    queued_s = event["queued_s"]
                for sent in STAMP.findall(line):
                    if spoke:
                        self._heard.delays_s.append((now - int(sent)) / 1e9)
                    else:
                        self._heard.first_s.append(now / 1e9 - asked - queued_s)
                        spoke = True
        return str(event.get("code") or event.get("type"))
