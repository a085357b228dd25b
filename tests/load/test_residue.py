"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import pytest

from tests.load.residue import soak


@pytest.mark.timeout(180)
async def test_runs_that_end_in_every_way_leave_nothing() -> None:
    """Also where the runner is killed in between and starts again."""
    residue = await soak(runs=16, kills=1, at_once=4)

    assert residue.left == 0, str(residue)
    assert residue.ends.total() == 16, str(residue)
    assert residue.ends["run.finished"], str(residue)
