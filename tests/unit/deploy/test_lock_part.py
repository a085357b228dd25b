"""A part of a lock file is a lock file."""

from __future__ import annotations

from pathlib import Path

from deploy.lock_part import read

_LOCK = """\
# made by uv
one==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via nobody
two-words==2.0 \\
    --hash=sha256:bb
"""


def test_a_requirement_keeps_its_hashes() -> None:
    """Each comes with its own lines, and with nobody else's."""
    parts = dict(read(_LOCK))

    assert list(parts) == ["one", "two-words"]
    assert "sha256:aa" in parts["one"]
    assert "sha256:ab" in parts["one"]
    assert "sha256:bb" not in parts["one"]
    assert parts["two-words"].startswith("two-words==2.0")


def test_nothing_of_our_lock_gets_lost() -> None:
    """Every version and every hash of requirements.lock belongs to a requirement."""
    lock = (Path(__file__).parents[3] / "requirements.lock").read_text(encoding="utf-8")

    parts = dict(read(lock))

    assert "aiohttp" in parts
    together = "".join(parts.values())
    assert together.count("==") >= len(parts)
    assert together.count("--hash=") == lock.count("--hash=")
