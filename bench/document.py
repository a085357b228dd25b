"""The last figures, where people look for them: in docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Report

BEGIN = "<!-- figures: written by `make bench` -->\n"
END = "<!-- end of figures -->\n"


def write_figures(report: Report, path: Path) -> None:
    """Replace what stands between the marks in *path* by *report*."""
    text = path.read_text(encoding="utf-8")
    path.write_text(with_figures(text, report), encoding="utf-8")


def with_figures(text: str, report: Report) -> str:
    """Return *text* with *report* between the marks."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError("the document has no place for the figures")
    return f"{before}{BEGIN}\n{_circumstances(report)}\n\n{report.tables()}\n\n{END}{after}"


def _circumstances(report: Report) -> str:
    machine = report.machine
    return (
        f"Measured on {machine['at']} in {machine['took_s']} s: {machine['cpus']} cores, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}, "
        f"OpenCode {machine['opencode']}; load {machine['load_before']} before, "
        f"{machine['load_after']} at the end."
    )
