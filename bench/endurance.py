"""`make endurance`: minutes at the limit, and whether anything grows.

More users than the service has places for, none of whom ever stops; light agents, through gateway
and runner. Who is refused comes back just when `Retry-After` says so. Every some seconds a row of
the table tells what gateway and runner take, and how long the callers had to wait.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench.agents import light_agents
from bench.callers import Callers, Heard
from bench.document import write_block
from bench.figures import Report, percentile
from bench.memory import proportional
from bench.service import LIGHT, service
from bench.signals import ended_by_sigterm
from bench.source import source
from bench.steady import Tolerance, trend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.service import Service
    from bench.source import Source

_SLOTS, _PLACES, _USERS = 4, 8, 24
_PIECES, _INTERVAL_S = (5, 25), 0.1
_RETENTION_S = 30.0
"""So short that what is remembered of ended runs is forgotten again in the first half."""
_SAMPLE_S = 10.0
_WHOLE_MINUTES = 10.0
_KEPT_SHARE = 0.9
_MIB = 1 << 20
_TOLERANCES = {
    "memory": Tolerance(share=0.03, least=2.0),
    "descriptors": Tolerance(share=0.05, least=8.0),
    "delay": Tolerance(share=0.5, least=10.0),
}
_DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one look saw: MiB, descriptors, and ms of the callers since the last look."""

    at_s: float
    gateway_mib: float
    gateway_fds: float
    runner_mib: float
    runner_fds: float
    first_p50_ms: float
    first_p95_ms: float
    piece_p50_ms: float
    piece_p95_ms: float


_JUDGED = {
    "gateway_mib": "memory",
    "runner_mib": "memory",
    "gateway_fds": "descriptors",
    "runner_fds": "descriptors",
    "first_p50_ms": "delay",
    "first_p95_ms": "delay",
    "piece_p50_ms": "delay",
    "piece_p95_ms": "delay",
}


async def endure(minutes: float, *, seed: int) -> tuple[list[Sample], Heard]:
    """Return what was seen, and all that the callers heard."""
    password = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory() as directory:
        async with source() as provider, light_agents(Path(directory)) as agent:
            settings = LIGHT | {
                "OPENCODE_BIN": str(agent),
                "MAX_CONCURRENT_PROCESSES": str(_SLOTS),
                "RUNNER_QUEUE_SIZE": str(_PLACES),
                "RUNNER_RETENTION_S": str(_RETENTION_S),
                "PB_SUPERUSER_PASSWORD": password,
            }
            async with service(provider, **settings) as whole:
                tokens = await _users(whole, password)
                callers = Callers(whole.http, seed=seed)
                tasks = [asyncio.create_task(callers.call(token)) for token in tokens]
                tasks.append(asyncio.create_task(_vary(provider, seed)))
                try:
                    return await _watch(whole, callers, minutes)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)


async def _users(whole: Service, password: str) -> list[str]:
    """Return the tokens of new users; PocketBase bounds how many may sign in a second."""
    path = "/api/collections/_superusers/auth-with-password"
    asked = {"identity": "admin@example.com", "password": password}
    async with whole.http.post(path, json=asked, headers={"Authorization": ""}) as response:
        admin = {"Authorization": (await response.json())["token"]}
    tokens = []
    for number in range(_USERS):
        body = {"email": f"user{number}@example.com", "name": f"User {number}"}
        body |= dict.fromkeys(("password", "passwordConfirm"), secrets.token_urlsafe(12))
        path = "/api/collections/users/records"
        async with whole.http.post(path, json=body, headers=admin) as response:
            user = (await response.json())["id"]
        path = f"/api/collections/users/impersonate/{user}"
        async with whole.http.post(path, json={"duration": 7200}, headers=admin) as response:
            tokens.append((await response.json())["token"])
    return tokens


async def _vary(provider: Source, seed: int) -> None:
    """Let no two runs take the same time."""
    dice = random.Random(seed)
    while True:
        provider.each(pieces=dice.randint(*_PIECES), interval_s=_INTERVAL_S)
        await asyncio.sleep(_INTERVAL_S)


async def _watch(whole: Service, callers: Callers, minutes: float) -> tuple[list[Sample], Heard]:
    gateway, runner = whole.part("gateway"), whole.part("runner")
    began, samples, heard = time.monotonic(), [], Heard()
    _say("| s | gateway MiB, fds | runner MiB, fds | first text p50, p95 | piece p50, p95 | kept |")
    while time.monotonic() - began < 60 * minutes:
        await asyncio.sleep(_SAMPLE_S - (time.monotonic() - began) % _SAMPLE_S)
        lately = callers.take()
        heard.add(lately)
        if not lately.first_s or not lately.delays_s:
            continue
        sample = Sample(
            at_s=time.monotonic() - began,
            gateway_mib=proportional(gateway) / _MIB,
            gateway_fds=_descriptors(gateway),
            runner_mib=proportional(runner) / _MIB,
            runner_fds=_descriptors(runner),
            first_p50_ms=1000 * percentile(lately.first_s, 0.5),
            first_p95_ms=1000 * percentile(lately.first_s, 0.95),
            piece_p50_ms=1000 * percentile(lately.delays_s, 0.5),
            piece_p95_ms=1000 * percentile(lately.delays_s, 0.95),
        )
        samples.append(sample)
        _say(
            f"| {sample.at_s:.0f} | {sample.gateway_mib:.1f}, {sample.gateway_fds:.0f} "
            f"| {sample.runner_mib:.1f}, {sample.runner_fds:.0f} "
            f"| {sample.first_p50_ms:.0f} ms, {sample.first_p95_ms:.0f} ms "
            f"| {sample.piece_p50_ms:.1f} ms, {sample.piece_p95_ms:.1f} ms "
            f"| {lately.kept}/{lately.kept + lately.broken} |"
        )
    return samples, heard


def verdict(samples: Sequence[Sample], heard: Heard, minutes: float) -> Report:
    """Return what was promised and what came of it."""
    report = Report({})
    rows = [asdict(sample) for sample in samples]
    for name, kind in _JUDGED.items():
        went = trend([(row["at_s"], row[name]) for row in rows], _TOLERANCES[kind])
        part, _, unit = name.rpartition("_")
        unit = {"mib": "MiB", "fds": "descriptors", "ms": "ms"}[unit]
        words = f"growth of the {part.replace('_', ' ')}, usually {went.usual:.1f} {unit}"
        report.at_most(words, went.tolerance, went.growth, unit)
    report.at_least(
        "kept `Retry-After`: of those who came back just then, let in",
        100 * _KEPT_SHARE,
        100 * heard.kept_share,
        "%",
    )
    other = heard.ends.total() - heard.ends["run.finished"]
    report.at_most("runs that did not end well", 0, other)
    group = f"{minutes:g} minutes at the limit"
    report.spread(group, "from a slot to the first text", _ms(heard.first_s), "ms")
    report.spread(group, "delay of a piece", _ms(heard.delays_s), "ms")
    report.spread(group, "told to come again after", heard.promised_s or [0.0], "s")
    report.add(group, "runs", heard.ends.total())
    report.add(group, "promises that came due", heard.kept + heard.broken)
    return report


def _ms(seconds: Sequence[float]) -> list[float]:
    return [1000 * one for one in seconds]


def _descriptors(pids: Sequence[int]) -> int:
    count = 0
    for pid in pids:
        with suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - the names are not needed
    return count


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def main() -> int:
    """Endure, and say whether it was all right."""
    parser = argparse.ArgumentParser(prog="python -m bench.endurance", description=__doc__)
    parser.add_argument("--minutes", type=float, default=_WHOLE_MINUTES)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    samples, heard = uvloop.run(ended_by_sigterm(endure(arguments.minutes, seed=arguments.seed)))
    report = verdict(samples, heard, arguments.minutes)
    text = (
        f"On {time.strftime('%Y-%m-%d', time.gmtime())}, {_USERS} users, {_SLOTS} slots, "
        f"{_PLACES} places; ends: {dict(heard.ends)}.\n\n{report.tables()}\n"
    )
    if arguments.minutes >= _WHOLE_MINUTES:
        write_block(_DOCUMENT, "endurance", "make endurance", text)
    sys.stdout.write(text)
    return 0 if all(target.met for target in report.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
