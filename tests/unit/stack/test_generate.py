"""`make secrets`: files that the containers, and nobody else, can read."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

from stack.generate import for_containers
from stack.settings import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = {
    *("pb_superuser_password", "key_encryption_keys", "key_sealing_key", "runner_token"),
    "openai_api_key",
}


def test_it_takes_nothing_but_python(tmp_path: Path) -> None:
    """No package, no environment; it says what it made."""
    command = [sys.executable, "-I", "-S", str(ROOT / "stack" / "generate.py"), str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, check=True, env={})

    assert {path.name for path in tmp_path.iterdir()} == _NAMES
    assert done.stdout.count("made ") == len(_NAMES)


def test_the_second_time_changes_nothing(tmp_path: Path) -> None:
    """Stored keys stay readable."""
    for_containers(tmp_path)
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}

    again = for_containers(tmp_path)

    assert again == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == first
    assert first["openai_api_key"].strip() == ""


def test_the_containers_user_can_read_them_and_no_other_of_the_host(tmp_path: Path) -> None:
    """As root they belong to that user; else only the folder keeps others out."""
    folder = tmp_path / "secrets"

    for_containers(folder)

    as_root = os.geteuid() == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == (0o400 if as_root else 0o444)
        assert found.st_uid == (10001 if as_root else os.geteuid())
