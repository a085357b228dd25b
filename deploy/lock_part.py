"""Print a part of a lock file: an image installs what it needs, with the versions of all.

Usage: lock_part.py LOCK [--only NAME … | --without NAME …]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="lock_part.py")
    parser.add_argument("lock", type=Path)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--only", nargs="*")
    choice.add_argument("--without", nargs="*", default=[])
    chosen = parser.parse_args()
    requirements = dict(read(chosen.lock.read_text(encoding="utf-8")))
    named = set(chosen.without if chosen.only is None else chosen.only)
    if unknown := named - requirements.keys():
        parser.error(f"not in the lock: {', '.join(sorted(unknown))}")
    for name, requirement in requirements.items():
        if (name in named) == (chosen.only is not None):
            sys.stdout.write(requirement)


def read(lock: str) -> Iterator[tuple[str, str]]:
    """Yield each requirement's name, and its lines with the hashes."""
    name, lines = "", ""
    for line in lock.splitlines(keepends=True):
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            if name:
                yield name, lines
            name, lines = line.partition("==")[0], ""
        lines += line
    if name:
        yield name, lines


if __name__ == "__main__":
    main()
