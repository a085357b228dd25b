"""Directories that fight back, removed by root and by an ordinary user."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.sandbox import trees
from runner.sandbox.removal import RemovalFailed, remove_tree
from tests.support.ordinary_user import REPOSITORY, UID, as_ordinary_user

if TYPE_CHECKING:
    from collections.abc import Iterator

WHO = ["root", "user"] if os.geteuid() == 0 else ["user"]

BUILD = {
    "modes": "for n in (0, 0o500, 0o200, 0o100): os.mkdir(f'd{n}'); open(f'd{n}/f', 'w').close();"
    " os.mkdir(f'd{n}/e'); os.chmod(f'd{n}/e', n); os.chmod(f'd{n}', n)",
    "top-closed": "os.mkdir('d'); os.chmod('.', 0)",
    "names": "[open(n, 'w').close() for n in (b'a\\nb', b'\\xff\\xfe', b'-rf', b' ', b'*')]",
    "depth": "for _ in range(12_000): os.mkdir('d'); os.chdir('d')",
    "links": "os.symlink('../outside', 'out'); os.symlink('/', 'root'); os.symlink('.', 'self');"
    " os.symlink('../outside/precious', 'file')",
    "many": "for d in range(300): os.mkdir(f'{d}'); [open(f'{d}/{n}', 'w').close()"
    " for n in range(50)]",
    "special": "os.mkfifo('pipe'); import socket; socket.socket(socket.AF_UNIX).bind('socket')",
}


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder of the ordinary user, with something precious beside the tree."""
    # In memory: thousands of files are made here, which takes a slow disk very long.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        base = Path(name)
        (base / "outside").mkdir()
        (base / "outside" / "precious").write_text("precious")
        if os.geteuid() == 0:
            for path in (base, base / "outside"):
                os.chown(path, UID, UID)
        yield base


def run_as(who: str, program: str, directory: Path) -> None:
    """Run Python *program* as *who*."""
    argv = [sys.executable, "-c", program, str(directory)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    if who == "root":
        subprocess.run(argv, check=True, env=env, timeout=50)
        return
    with as_ordinary_user(argv) as command:
        subprocess.run(command.argv, pass_fds=command.fds, check=True, env=env, timeout=50)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("build", BUILD)
def test_tree_is_gone_and_nothing_else(who: str, build: str, base: Path) -> None:
    """Whatever a tenant left, it goes; what links point at stays."""
    run_as(
        "user",
        "import os, sys\nos.chdir(sys.argv[1])\nos.mkdir('tree')\nos.chdir('tree')\n"
        + BUILD[build],
        base,
    )

    run_as(
        who,
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from runner.sandbox.removal import remove_tree\n"
        "asyncio.run(remove_tree(Path(sys.argv[1]) / 'tree'))",
        base,
    )

    assert [path.name for path in base.iterdir()] == ["outside"]
    assert (base / "outside" / "precious").read_text() == "precious"


async def test_link_in_place_of_the_tree_is_removed_itself(base: Path) -> None:
    """A run directory that became a link takes nothing else with it."""
    (base / "tree").symlink_to("outside")

    await remove_tree(base / "tree")

    assert (base / "outside" / "precious").exists()
    assert not (base / "tree").is_symlink()


async def test_nothing_there_is_fine(base: Path) -> None:
    """Removing twice is no error."""
    await remove_tree(base / "tree")
    await remove_tree(base / "nowhere" / "tree")


async def test_event_loop_goes_on_meanwhile(base: Path) -> None:
    """Many files take a while, and nobody waits for it but the caller."""
    for number in range(20_000):
        (base / str(number)).touch()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.001)

    beating = asyncio.create_task(beat())
    await remove_tree(base)
    beating.cancel()
    base.mkdir()

    assert beats > 20


async def test_removal_that_takes_too_long_is_an_error(base: Path) -> None:
    """It is bounded; what is left, the next sweep finds."""
    for number in range(100):
        (base / str(number)).touch()

    with pytest.raises(RemovalFailed):
        await remove_tree(base, timeout_s=0)

    assert base.exists()


def test_measuring_counts_what_a_tree_takes(tmp_path: Path) -> None:
    """Blocks on disk, sparse files by what they really take, every entry once."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").write_bytes(bytes(1 << 20))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "link").symlink_to("/usr")

    usage = trees.measure(tmp_path, stop=threading.Event())

    assert usage.entries == 4
    assert 1 << 20 <= usage.disk_bytes < 2 << 20


def test_measuring_stops_when_told(tmp_path: Path) -> None:
    """Nobody waits for a look that is wanted no more."""
    (tmp_path / "file").touch()
    stop = threading.Event()
    stop.set()

    with pytest.raises(trees.Stopped):
        trees.measure(tmp_path, stop=stop)


def test_directory_moved_while_walking_is_noticed(tmp_path: Path) -> None:
    """The way back up is checked, so a tenant can't lead the walk out of its tree."""
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "inner" / "deep" / "file").touch()
    moved = False

    def move(_directory: int, entry: os.DirEntry[str]) -> None:
        nonlocal moved
        if entry.name == "file" and not moved:
            (tmp_path / "inner" / "deep").rename(tmp_path / "moved")
            moved = True

    with pytest.raises(trees.TreeChanged):
        trees.walk(tmp_path, move, stop=threading.Event())
