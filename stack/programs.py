"""Find the programs that the parts are made of, before anything starts."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from runner.agents.opencode import find_binary
from runner.contract.problems import OpenCodeUnavailable
from runner.plumbing.settings import BadSettings


def pocketbase() -> Path:
    """Return PocketBase's binary.

    Raises:
        BadSettings: There is none.
    """
    beside_python = Path(sys.executable).parent
    found = shutil.which("pocketbase", path=str(beside_python)) or shutil.which("pocketbase")
    if found is None:
        raise BadSettings("the program `pocketbase` is missing: `make run` installs it")
    return Path(found)


def must_have_opencode(configured: Path | None) -> None:
    """Check that the runner will find OpenCode.

    Raises:
        BadSettings: It won't.
    """
    try:
        find_binary(configured)
    except OpenCodeUnavailable:
        where = f"OPENCODE_BIN={configured} is no file" if configured else "`make run` installs it"
        raise BadSettings(f"the program `opencode` is missing: {where}") from None
