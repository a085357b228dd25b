"""`python -m bench`: measure, print one table, write `bench/results/latest.{json,png}`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from pathlib import Path

from bench import delay, fairness, first_text, memory
from bench.figures import Report
from bench.plot import plot
from bench.provider import stamping_provider
from runner.agents.opencode import PINNED_VERSION

_RESULTS = Path(__file__).parent / "results"
_PARTS = ("first-text", "delay", "memory", "fairness")


async def main() -> None:
    """Do what the command line asks for."""
    arguments = _arguments()
    report = Report(_machine())
    async with stamping_provider() as provider:
        for part in arguments.parts:
            _say(f"measuring {part} …")
            match part:
                case "first-text":
                    await first_text.measure(
                        report, provider, warm=arguments.warm, cold=arguments.cold
                    )
                case "delay":
                    await delay.measure(report, provider)
                case "memory":
                    await memory.measure(report, provider)
                case _:
                    await fairness.measure(report, provider)
            _write(report)  # a later part may be cut short
    if not plot(report, _RESULTS / "latest.png"):
        _say("no picture: matplotlib is not installed")
    sys.stdout.write(report.table() + "\n")


def _write(report: Report) -> None:
    report.machine["load_after"] = round(os.getloadavg()[0], 2)
    _RESULTS.mkdir(exist_ok=True)
    document = json.dumps(report.document(), indent=1) + "\n"
    (_RESULTS / "latest.json").write_text(document, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["all", *_PARTS], default="all")
    parser.add_argument("--warm", type=int, default=10, help="samples of a warm start")
    parser.add_argument("--cold", type=int, default=3, help="samples of a cold start")
    arguments = parser.parse_args()
    if "all" in arguments.parts:
        arguments.parts = _PARTS
    return arguments


def _machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "opencode": PINNED_VERSION,
        "load_before": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _say(words: str) -> None:
    sys.stderr.write(f"· {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    asyncio.run(main())
