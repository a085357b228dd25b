"""Attacks inside the runner's container: `python -m tests.support.in_container driver|assault`.

Only what the image has can be imported here.
"""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import sys
import tempfile

from tests.attacks.registry import ATTACKS, LEAVE, PLANT
from tests.support import sandbox_driver
from tests.support.assault import carry_out

_TAKEN_PIDS = 3000


def main() -> None:
    """Do what the argument says."""
    _take_low_pids()
    if sys.argv[1] == "driver":
        with tempfile.TemporaryDirectory(prefix="opencode-attacks-") as base:
            sys.argv[1:] = [base]
            asyncio.run(sandbox_driver.main())
    else:
        assault = carry_out([PLANT, LEAVE, *ATTACKS], backend="bubblewrap", as_user=True)
        print(base64.b64encode(pickle.dumps(assault)).decode())  # noqa: T201


def _take_low_pids() -> None:
    """In a new container our numbers are as low as a sandbox's own, and would be found there."""
    for _ in range(_TAKEN_PIDS):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
