"""What was measured: rows of a table, each beside its baseline of the same run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_SIGNIFICANT = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was measured: once, or often.

    Attributes:
        group: The part of the table it belongs to.
        name: What was measured.
        unit: Of `value`, or of the percentiles.
        value: How much, where there is one number.
        p50, p95, p99: Percentiles, where there are many.
        baseline: Name of the row of the same group that it is compared with.
        ratio: Its value, or its p50, over the baseline's.
        samples: How many measurements are behind it.
    """

    group: str
    name: str
    unit: str
    value: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    baseline: str = ""
    ratio: float | None = None
    samples: int = 1

    @property
    def typical(self) -> float:
        """The number that stands for it."""
        number = self.p50 if self.value is None else self.value
        if number is None:
            raise ValueError(f"nothing was measured of {self.name}")
        return number


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the figures were to show, and do or don't."""

    name: str
    wanted: str
    measured: str
    met: bool


@dataclass
class Report:
    """All figures of a run, in order.

    Attributes:
        left_out: Part that was not measured → why.
    """

    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        group: str,
        name: str,
        value: float,
        unit: str = "",
        *,
        baseline: str = "",
        samples: int = 1,
    ) -> Row:
        """Add one number, and its ratio to the row *baseline*."""
        row = Row(group=group, name=name, unit=unit, value=value, samples=samples)
        return self._compared(row, baseline)

    def spread(
        self, group: str, name: str, samples: Sequence[float], unit: str, *, baseline: str = ""
    ) -> Row:
        """Add the percentiles of *samples*, and the ratio of the middle one to *baseline*'s."""
        p50, p95, p99 = (percentile(samples, share) for share in SHARES.values())
        row = Row(
            group=group, name=name, unit=unit, p50=p50, p95=p95, p99=p99, samples=len(samples)
        )
        return self._compared(row, baseline)

    def _compared(self, row: Row, baseline: str) -> Row:
        if baseline:
            against = self.row(row.group, baseline).typical
            ratio = row.typical / against if against else None
            row = Row(**(asdict(row) | {"baseline": baseline, "ratio": ratio}))
        self.rows.append(row)
        return row

    def row(self, group: str, name: str) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if (row.group, row.name) == (group, name))

    def at_most(self, name: str, limit: float, measured: float, unit: str = "") -> None:
        """Note a target that is an upper bound."""
        self._target(name, f"at most {amount(limit, unit)}", measured, unit, met=measured <= limit)

    def at_least(self, name: str, limit: float, measured: float, unit: str = "") -> None:
        """Note a target that is a lower bound."""
        self._target(name, f"at least {amount(limit, unit)}", measured, unit, met=measured >= limit)

    def _target(self, name: str, wanted: str, measured: float, unit: str, *, met: bool) -> None:
        told = amount(measured, unit)
        self.targets.append(Target(name=name, wanted=wanted, measured=told, met=met))

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    def tables(self) -> str:
        """Return it for people, as Markdown: what it was to show, and all that was measured."""
        return "\n\n".join(part for part in (self._targets(), self._rows(), self._rest()) if part)

    def _targets(self) -> str:
        if not self.targets:
            return ""
        lines = ["| target | wanted | measured | |", "|---|---|---|---|"]
        for target in self.targets:
            verdict = "met" if target.met else "**missed**"
            lines.append(f"| {target.name} | {target.wanted} | {target.measured} | {verdict} |")
        return "\n".join(lines)

    def _rows(self) -> str:
        if not self.rows:
            return ""
        head = "| what | value | p50 | p95 | p99 | ratio | to | samples |"
        lines = [head, "|---|---|---|---|---|---|---|---|"]
        group = ""
        for row in self.rows:
            if row.group != group:
                group = row.group
                lines.append(f"| **{group}** | | | | | | | |")
            numbers = (row.value, row.p50, row.p95, row.p99)
            cells = ["" if number is None else amount(number, row.unit) for number in numbers]
            ratio = "" if row.ratio is None else amount(row.ratio)
            cells = [row.name, *cells, ratio, row.baseline, str(row.samples)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def _rest(self) -> str:
        return "\n".join(f"- Left out: {part} ({why})." for part, why in self.left_out.items())


def amount(number: float, unit: str = "") -> str:
    """Return a number as people read it: three digits that count, and its unit."""
    if unit == "ms" and abs(number) >= 1000:
        number, unit = number / 1000, "s"
    if not number:
        return f"0 {unit}".strip()
    digits = _SIGNIFICANT - 1 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(0, digits)}f} {unit}".strip()


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that *share* of all are not above."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 where all have the same, 1/n where one has it all."""
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
