"""`python -m bench`: measure, and print the figures.

Only when all parts are measured, which takes some minutes, are the figures also written: to
`bench/results/latest.{json,png}` and into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench import delay, fairness, first_text, gateway_alone, growth, memory, sandboxes
from bench.document import write_figures
from bench.figures import Report
from bench.plot import plot
from bench.signals import ended_by_sigterm
from bench.source import source
from bench.tools import ToolMissing
from runner.agents.opencode import PINNED_VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.source import Source

_ROOT = Path(__file__).parents[1]
_RESULTS = Path(__file__).parent / "results"


def _parts(warm: int, cold: int) -> dict[str, Callable[[Report, Source], Awaitable[None]]]:
    return {
        "first-text": lambda report, provider: first_text.measure(
            report, provider, warm=warm, cold=cold
        ),
        "delay": delay.measure,
        "gateway-alone": gateway_alone.measure,
        "fairness": fairness.measure,
        "growth": growth.measure,
        "memory": memory.measure,
        "sandboxes": sandboxes.measure,
    }


async def main() -> int:
    """Do what the command line asks for; return the exit status."""
    parts = _parts(warm=10, cold=4)
    arguments = _arguments(list(parts))
    parts = _parts(arguments.warm, arguments.cold)
    began = time.monotonic()
    report = Report(_machine())
    status = 0
    for name in arguments.parts or parts:
        started = time.monotonic()
        try:
            async with source() as provider:
                await parts[name](report, provider)
        except ToolMissing as exc:
            report.left_out[name] = str(exc)
        except Exception as exc:  # noqa: BLE001 - the other parts take minutes, too
            traceback.print_exc()
            report.left_out[name] = f"it failed: {exc}"
            status = 1
        _say(f"{name}: {time.monotonic() - started:.0f} s")
    report.machine |= {
        "load_after": round(os.getloadavg()[0], 1),
        "took_s": round(time.monotonic() - began),
    }
    if not arguments.parts:
        _write(report)
    sys.stdout.write(report.tables() + "\n")
    return status


def _write(report: Report) -> None:
    _RESULTS.mkdir(exist_ok=True)
    document = json.dumps(report.document(), indent=1) + "\n"
    (_RESULTS / "latest.json").write_text(document, encoding="utf-8")
    if not plot(report, _RESULTS / "latest.png"):
        _say("no picture: matplotlib is not installed")
    write_figures(report, _ROOT / "docs" / "performance.md")


def _arguments(parts: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"{', '.join(parts)}; left out: all"
    )
    parser.add_argument("--warm", type=int, default=10, help="samples of a warm start")
    parser.add_argument("--cold", type=int, default=4, help="samples of a cold start")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return arguments


def _machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "opencode": PINNED_VERSION,
        "load_before": round(os.getloadavg()[0], 1),
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _say(words: str) -> None:
    sys.stderr.write(f"· {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(uvloop.run(ended_by_sigterm(main())))
