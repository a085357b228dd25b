"""nginx and wrk: this machine's own, or Debian's packages unpacked below `.cache`, without root.

`python -m bench.tools` says which ones there are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FOLDER = Path(__file__).parents[1] / ".cache" / "bench-tools"
_ADMIN_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on everybody's PATH
_PATIENCE_S = 120.0
_NEEDED = re.compile(r"^[ |]*Depends: (?P<name>lib\S+|nginx-\S+)$", re.MULTILINE)
_VERSION = re.compile(r"\d+(\.\d+)+")


class ToolMissing(Exception):
    """A tool is not here and can't be fetched; says why."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that runs.

    Attributes:
        environment: What has to be set for it.
    """

    program: Path
    version: str
    environment: Mapping[str, str]


def find(name: str, *, folder: Path = FOLDER) -> Tool:
    """Return the program *name* of Debian's package *name*; fetch it below *folder* if need be.

    Raises:
        ToolMissing: There is none, and none to be had.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_ADMIN_FOLDERS))
    if (found := shutil.which(name, path=path)) and (tool := _tried(name, Path(found), {})):
        return tool
    root = folder / name
    if tool := _unpacked(name, root):
        return tool
    _fetch(name, root)
    if tool := _unpacked(name, root):
        return tool
    raise ToolMissing(f"Debian's package {name} was unpacked, but its program does not start")


def _unpacked(name: str, root: Path) -> Tool | None:
    programs = [root / "usr" / folder / name for folder in ("sbin", "bin")]
    program = next((path for path in programs if path.exists()), None)
    if program is None:
        return None
    libraries = sorted({str(path.parent) for path in (root / "usr" / "lib").rglob("*.so*")})
    environment = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}
    return _tried(name, program, environment)


def _tried(name: str, program: Path, environment: Mapping[str, str]) -> Tool | None:
    """Return it as a tool, if it starts: then it says its name and its version."""
    try:
        said = subprocess.run(
            [str(program), "-v"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,  # wrk calls it an error
            timeout=_PATIENCE_S,
        )
    except OSError:
        return None
    words = said.stdout + said.stderr
    version = _VERSION.search(words)
    if version is None or not words.startswith(name):
        return None
    return Tool(program=program, version=version[0], environment=environment)


def _fetch(name: str, root: Path) -> None:
    """Unpack the package and the libraries that this machine lacks.

    They become the folder *root* in one step, when all are there.
    """
    lacking = [tool for tool in ("apt-get", "apt-cache", "dpkg") if not shutil.which(tool)]
    if lacking:
        raise ToolMissing(f"{name} is not installed, and without {lacking[0]} it can't be fetched")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        archives, draft = Path(temporary, "archives"), Path(temporary, "root")
        archives.mkdir()
        apt = _apt_options(root.parent / "lists", name)
        packages = [name, *_missing_below(name, apt)]
        _ask([*_APT_GET, *apt, "download", *packages], cwd=archives)
        for archive in archives.glob("*.deb"):
            _ask(["dpkg", "-x", str(archive), str(draft)], cwd=archives)
        shutil.rmtree(root, ignore_errors=True)
        draft.rename(root)


_APT_GET = ("apt-get", "-qq", "-o", "APT::Sandbox::User=")  # root's own sandbox can't write here


def _apt_options(lists: Path, name: str) -> list[str]:
    """Return what apt needs to know of *name*: nothing, or the lists that this fetches."""
    if _ask(["apt-cache", "show", name], fails=True):
        return []
    lists.joinpath("partial").mkdir(parents=True, exist_ok=True)
    own = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={lists.with_name('apt')}"]
    _ask([*_APT_GET, *own, "update"])
    return own


def _missing_below(name: str, apt: Iterable[str]) -> Iterator[str]:
    """Yield the packages that *name* needs and this machine lacks, and what those need."""
    seen, left = {name}, [name]
    while left:
        asked = ["apt-cache", *apt, "depends", "--important", left.pop()]
        for found in _NEEDED.finditer(_ask(asked)):
            needed = found["name"]
            if needed not in seen and not _is_installed(needed):
                seen.add(needed)
                left.append(needed)
                yield needed


def _is_installed(package: str) -> bool:
    shown = _ask(["dpkg-query", "-W", "-f", "${db:Status-Status} ", package], fails=True)
    return "installed" in shown.split()


def _ask(command: Sequence[str], *, cwd: Path | None = None, fails: bool = False) -> str:
    """Return what *command* prints; where it *fails*, which may be, nothing."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise ToolMissing(f"{command[0]} took too long") from exc
    if done.returncode == 0:
        return done.stdout
    if fails:
        return ""
    words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise ToolMissing(f"{command[0]} can't fetch it: {words[-1]}")


def main() -> None:
    """Say what is here."""
    for name in ("nginx", "wrk"):
        try:
            tool = find(name)
        except ToolMissing as exc:
            sys.stdout.write(f"{name}: {exc}\n")
        else:
            sys.stdout.write(f"{name} {tool.version}: {tool.program}\n")


if __name__ == "__main__":
    main()
