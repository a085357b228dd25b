"""The figures as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Figure, Report


def plot(report: Report, path: Path) -> bool:
    """Write *report* as a PNG; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - installed for the benchmark alone

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ModuleNotFoundError:
        return False
    groups = list(dict.fromkeys(figure.group for figure in report.figures))
    rows = [[f for f in report.of(group) if f.unit in {"ms", "MiB", "turns"}] for group in groups]
    shown = [(group, figures) for group, figures in zip(groups, rows, strict=True) if figures]
    figure, axes = plt.subplots(
        len(shown),
        1,
        figsize=(11, 1.5 + sum(0.35 * len(row) + 0.9 for _, row in shown)),
        height_ratios=[len(row) + 1 for _, row in shown],
        squeeze=False,
        layout="constrained",
    )
    for (group, row), axis in zip(shown, axes[:, 0], strict=True):
        bars = axis.barh([f.name for f in row], [max(f.value, 0.01) for f in row])
        axis.bar_label(bars, [_label(f) for f in row], padding=4)
        axis.invert_yaxis()
        axis.set_title(group, loc="left")
        axis.set_xscale("log" if group == "first text" else "linear")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _label(figure: Figure) -> str:
    digits = 0 if figure.value >= 100 else 2
    return f"{figure.value:.{digits}f} {figure.unit}"
