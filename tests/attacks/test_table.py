"""docs/security.md tells of every attack, and of none that is not there any more."""

from __future__ import annotations

from tests.attacks import table


def test_table_has_a_row_for_every_attack() -> None:
    """If not: `make test-attacks docs`."""
    rows = table.written_rows(table.DOCUMENT.read_text(encoding="utf-8"))

    assert [row[0] for row in rows] == list(table.titles())


def test_backends_hold_all_that_was_tried() -> None:
    """A hole that is known has to be mended, not listed."""
    rows = table.written_rows(table.DOCUMENT.read_text(encoding="utf-8"))

    assert [row[0] for row in rows if "**not held**" in row[1:-1]] == []


def test_writing_keeps_what_was_not_tried_again() -> None:
    """Results of one place don't forget those of another."""
    title = next(iter(table.titles()))
    once = table.write(f"a\n{table.BEGIN}{table.END}b\n", {title: {"root": True, "process": False}})

    again = table.write(once, {title: {"user": True}})

    assert table.written_rows(again)[0] == [
        title,
        "held",
        "held",
        "not tried",
        "not tried",
        "**not held**",
    ]
    assert again.startswith("a\n")
    assert again.endswith("b\n")
