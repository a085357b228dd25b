"""The version that `/test` and `/opencode/health` tell."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

_PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


@cache
def version() -> str:
    """Return the version of the installed package, or of the checkout it runs from."""
    try:
        return metadata.version("opencode-multiuser")
    except metadata.PackageNotFoundError:
        if not _PYPROJECT.is_file():
            return "unknown"
        return str(tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]["version"])
