"""How much memory is left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.pool.memory import available_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_some_and_less_than_the_machine_has() -> None:
    """Read from the kernel, as the host or the container has it."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    assert 0 < available_bytes() < whole


def test_a_containers_limit_counts_but_not_files_that_can_be_dropped(tmp_path: Path) -> None:
    """Files once read fill a container up to its limit; that is no shortage."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 600\n")

    assert available_bytes(tmp_path) == 700


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    """As most containers have it."""
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("900\n")

    assert available_bytes(tmp_path) > 1000
