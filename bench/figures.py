"""What was measured: figures, each beside its baseline of the same run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number.

    Attributes:
        group: The table it belongs to.
        name: What was measured.
        value: How much.
        unit: Of what.
        baseline: Name of the figure of the same group that it is compared with.
        ratio: `value` over the baseline's.
        samples: How many measurements are behind it.
    """

    group: str
    name: str
    value: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    samples: int = 1


@dataclass
class Report:
    """All figures of a run, in order."""

    machine: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        group: str,
        name: str,
        value: float,
        unit: str,
        *,
        baseline: str = "",
        against: float | None = None,
        samples: int = 1,
    ) -> None:
        """Add a figure and its ratio to *baseline*: to the figure of that name, or *against*."""
        if baseline and against is None:
            against = next(f.value for f in self.of(group) if f.name == baseline)
        ratio = None if against is None else value / against
        figure = Figure(
            group=group,
            name=name,
            value=value,
            unit=unit,
            baseline=baseline,
            ratio=ratio,
            samples=samples,
        )
        self.figures.append(figure)

    def of(self, group: str) -> list[Figure]:
        """Return a group's figures."""
        return [figure for figure in self.figures if figure.group == group]

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"machine": self.machine, "figures": [asdict(figure) for figure in self.figures]}

    def table(self) -> str:
        """Return it for people, as Markdown."""
        lines = [
            "| what | value | ratio | to | samples |",
            "|---|---|---|---|---|",
        ]
        group = ""
        for figure in self.figures:
            if figure.group != group:
                group = figure.group
                lines.append(f"| **{group}** | | | | |")
            ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
            lines.append(
                f"| {figure.name} | {figure.value:.4g} {figure.unit} | {ratio} "
                f"| {figure.baseline} | {figure.samples} |"
            )
        return "\n".join(lines)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that *share* of all are not above."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
