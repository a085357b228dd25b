"""How much memory is left."""

from __future__ import annotations

import os

from runner.pool.memory import available_bytes


def test_it_is_some_and_less_than_the_machine_has() -> None:
    """Read from the kernel, as the host or the container has it."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    assert 0 < available_bytes() < whole
