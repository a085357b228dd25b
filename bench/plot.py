"""The figures as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figures import amount

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Report, Row


def plot(report: Report, path: Path) -> bool:
    """Write *report* as a PNG; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - installed for the benchmark alone

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ModuleNotFoundError:
        return False
    charts: dict[tuple[str, str], list[Row]] = {}
    for row in report.rows:
        charts.setdefault((row.group, row.unit), []).append(row)
    figure, axes = plt.subplots(
        len(charts),
        1,
        figsize=(12, 1.5 + sum(0.32 * len(rows) + 0.9 for rows in charts.values())),
        height_ratios=[len(rows) + 1 for rows in charts.values()],
        squeeze=False,
        layout="constrained",
    )
    for ((group, unit), rows), axis in zip(charts.items(), axes[:, 0], strict=True):
        values = [max(row.typical, 0.0) for row in rows]
        bars = axis.barh([row.name for row in rows], values)
        axis.bar_label(bars, [_label(row) for row in rows], padding=4)
        axis.invert_yaxis()
        axis.set_title(f"{group}, {unit}" if unit else group, loc="left")
        positive = [value for value in values if value]
        if positive and max(positive) > 50 * min(positive):
            axis.set_xscale("log")
        axis.margins(x=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return True


def _label(row: Row) -> str:
    told = amount(row.typical, row.unit)
    return told if row.p95 is None else f"{told}, p95 {amount(row.p95, row.unit)}"
