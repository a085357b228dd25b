"""The last figures, where people look for them: between two marks in docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Report


def write_figures(report: Report, path: Path) -> None:
    """Let *path* show *report* as what `make bench` measured."""
    text = f"{_circumstances(report)}\n\n{report.tables()}\n"
    write_block(path, "figures", "make bench", text)


def write_block(path: Path, name: str, command: str, block: str) -> None:
    """Replace what *command* wrote into *path* under *name*."""
    text = path.read_text(encoding="utf-8")
    begin = f"<!-- {name}: written by `{command}` -->\n"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end := f"<!-- end of {name} -->\n")
    if not begun or not ended:
        raise ValueError(f"{path.name} has no place for the {name}")
    path.write_text(f"{before}{begin}\n{block}\n{end}{after}", encoding="utf-8")


def _circumstances(report: Report) -> str:
    machine = report.machine
    return (
        f"Measured on {machine['at']} in {machine['took_s']} s: {machine['cpus']} cores, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}, "
        f"OpenCode {machine['opencode']}; load {machine['load_before']} before, "
        f"{machine['load_after']} at the end."
    )
