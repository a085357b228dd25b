"""The spool keeps entries in order, through crashes at any byte, each process in its own file."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.spool import Intents, Spool, SpoolUnwritable

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES: list[dict[str, Any]] = [
    {"op": "began", "text": "Grüße 🙂\n"},
    {"op": "ended"},
    {"op": "x"},
]


def all_of(spool: Spool) -> list[dict[str, Any]]:
    found = []
    while (entry := spool.first()) is not None:
        found.append(entry)
        spool.done()
    return found


def test_entries_come_in_order_and_once(tmp_path: Path) -> None:
    """What is done does not come again; when all is done the file is empty, and goes at the end."""
    spool = Spool.create(tmp_path)
    for entry in ENTRIES:
        spool.append(entry)

    assert spool.first() == spool.first() == ENTRIES[0]
    spool.done()
    spool.append({"op": "late"})
    assert all_of(spool) == [*ENTRIES[1:], {"op": "late"}]
    [file] = tmp_path.iterdir()
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (0, 0o600)
    spool.append(ENTRIES[0])
    assert all_of(spool) == [ENTRIES[0]]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_off_at_any_byte_keeps_its_whole_lines(tmp_path: Path) -> None:
    """However far a crash let the last write come."""
    lines = [json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in ENTRIES]
    whole = b"".join(lines)
    for size in range(len(whole) + 1):
        path = tmp_path / f"{size}.ndjson"
        path.write_bytes(whole[:size])

        [spool] = Spool.take_over(tmp_path)

        assert all_of(spool) == ENTRIES[: whole[:size].count(b"\n")]
        spool.close()
        assert not path.exists()


def test_a_living_processes_file_is_not_taken_over(tmp_path: Path) -> None:
    """Only what nobody holds is taken, by one alone, the oldest first."""
    held = Spool.create(tmp_path)
    for number, age_s in ((1, 10), (2, 20)):
        path = tmp_path / f"left{number}.ndjson"
        path.write_bytes(json.dumps({"n": number}).encode() + b"\n")
        os.utime(path, (time.time() - age_s,) * 2)

    taken = list(Spool.take_over(tmp_path))

    assert [spool.first() for spool in taken] == [{"n": 2}, {"n": 1}]
    assert list(Spool.take_over(tmp_path)) == []
    for spool in (*taken, held):
        spool.close()
    # What is left in them is for the next.
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_can_not_be_is_told(tmp_path: Path) -> None:
    """The error names the folder and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnwritable, match=r"file/spool can't be written: Not a directory"):
        Spool.create(tmp_path / "file" / "spool")


def test_intents_are_told_once_they_are_old(tmp_path: Path) -> None:
    """Young ones are still being asked; those that were cut off had not been asked."""
    intents = Intents(tmp_path)
    intents.keep("a" * 15, {"prompt": "ü"})
    (tmp_path / f"{'b' * 15}.asked").write_bytes(b"{")

    assert intents.older_than(60) == {}
    assert intents.older_than(-1) == {"a" * 15: {"prompt": "ü"}}
    intents.drop("a" * 15)
    intents.drop("a" * 15)
    assert list(tmp_path.iterdir()) == []
