"""One stack on one DATA_DIR, and none while a backup is put back."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.plumbing.settings import BadSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def sole_user_of(data_dir: Path) -> Iterator[None]:
    """Hold *data_dir* for this process alone; the kernel lets go of it when the process ends.

    Raises:
        BadSettings: Another has it, or it can't be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "stack.lock").open("a")
    except OSError as exc:
        raise BadSettings(f"DATA_DIR {data_dir} can't be written: {exc.strerror}") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadSettings(f"another stack uses {data_dir}: end it, or set DATA_DIR") from None
        yield
