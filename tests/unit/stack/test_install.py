"""The installer, in a checkout of its own. What it would download from stands still here."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stack.secrets import NAMES
from tests.support.processes import alive, eventually

SCRIPT = Path(__file__).parents[3] / "stack" / "install.py"
PIP = """#!/bin/sh
env > {log}/environment
echo "$@" >> {log}/installed
{then}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with locks, and OpenCode installed elsewhere."""
    root = tmp_path / "checkout"
    module = tmp_path / "node_modules" / "pocketbase" / "dist" / "pocketbase.es.mjs"
    for folder in (root / "stack", module.parent, tmp_path / "log"):
        folder.mkdir(parents=True)
    module.write_text("export default 1")
    (root / "node_modules").symlink_to(tmp_path / "node_modules")
    shutil.copy(SCRIPT, root / "stack")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (root / lock).write_text("")
    return root


def install(checkout: Path, *args: str, pip: str = "exit 0") -> subprocess.Popen[str]:
    """Start the installer with a `python -m venv` that makes our stand-in of pip."""
    log = checkout.parent / "log"
    fake = checkout.parent / "pip"
    fake.write_text(PIP.format(log=log, then=pip))
    fake.chmod(0o755)
    make_venv = (
        "import runpy, subprocess, sys, os\n"
        "popen = subprocess.Popen\n"
        "def start(command, **kw):\n"
        "    if '-m' in command and command[2] == 'venv':\n"
        f"        command = ['sh', '-c', 'mkdir -p .venv/bin && cp {fake} .venv/bin/python']\n"
        "    return popen(command, **kw)\n"
        "subprocess.Popen = start\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", make_venv, str(checkout / "stack" / "install.py"), *args],
        env={"PATH": os.environ["PATH"], "OPENAI_API_KEY": "canary"},
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def installs(checkout: Path) -> int:
    """How often something was installed."""
    log = checkout.parent / "log" / "installed"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_second_start_installs_nothing(checkout: Path) -> None:
    """It needs no network and no time."""
    install(checkout, "run").communicate(timeout=30)
    out, err = install(checkout, "run").communicate(timeout=30)

    assert (out, err) == ("", "· node_modules is a link: taken as it is\n")
    assert installs(checkout) == 1
    assert (checkout / "pb_public" / "vendor" / "pocketbase.es.mjs").exists()


def test_a_changed_lock_is_installed(checkout: Path) -> None:
    """After a `git pull`, say."""
    install(checkout, "run").communicate(timeout=30)
    (checkout / "requirements.lock").write_text("# newer")
    install(checkout, "run").communicate(timeout=30)

    assert installs(checkout) == 2


def test_an_installation_that_failed_is_repaired_by_the_next_start(checkout: Path) -> None:
    """One line says what failed; nothing half made is taken for whole."""
    failed = install(checkout, "run", pip="exit 7")
    _, err = failed.communicate(timeout=30)
    (checkout / ".venv" / "half").touch()
    mended = install(checkout, "run")
    mended.communicate(timeout=30)

    assert (failed.returncode, mended.returncode) == (1, 0)
    assert err.splitlines()[-1].startswith("make: pip can't install the Python packages")
    assert not (checkout / ".venv" / "half").exists()


async def test_a_signal_ends_what_is_being_installed(checkout: Path) -> None:
    """Also what pip itself has started."""
    fifo = checkout.parent / "started"
    os.mkfifo(fifo)
    process = install(checkout, "run", pip=f"sh -c 'echo $$ > {fifo}; exec sleep 60'; true")
    child = int(fifo.read_text())

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert process.returncode == 128 + signal.SIGTERM
    await eventually(lambda: alive([child]) == [])


def test_it_becomes_the_command_when_everything_is_there(checkout: Path) -> None:
    """With the caller's environment, so that `make run` passes settings on."""
    out, _ = install(checkout, "run", "--", "sh", "-c", "echo $OPENAI_API_KEY").communicate(
        timeout=30
    )

    assert out == "canary\n"


def test_installers_get_no_secret(checkout: Path) -> None:
    """They run other people's code."""
    install(checkout, "run").communicate(timeout=30)

    environment = (checkout.parent / "log" / "environment").read_text()
    assert "canary" not in environment
    assert f"TMPDIR={checkout}/.cache/tmp" in environment
    assert runpy.run_path(str(SCRIPT))["_SECRETS"] == NAMES


def test_without_chromium_it_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    """Where it can't install it itself."""
    (checkout / ".venv").symlink_to(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-I", str(checkout / "stack" / "install.py"), "test"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert ended.returncode == 1
    assert "the tests need Chromium" in ended.stderr.splitlines()[-1]
