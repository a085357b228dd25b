"""How figures become tables, and where the tables go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.document import write_figures
from bench.figures import Report, amount, jain, percentile
from bench.plot import plot

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = "<!-- figures: written by `make bench` -->\n"
END = "<!-- end of figures -->\n"
MACHINE = {
    "cpus": 2,
    "memory_gib": 8.0,
    "kernel": "6.1",
    "python": "3.11",
    "opencode": "1.2.3",
    "load_before": 0.1,
    "load_after": 1.5,
    "at": "2026-01-02",
    "took_s": 300,
}


@pytest.fixture
def report() -> Report:
    """One with everything in it."""
    report = Report(dict(MACHINE))
    report.spread("delay", "direct", [0.1, 0.2, 0.3, 0.4], "ms")
    report.spread("delay", "through", [1.0, 2.0, 3.0, 12_000.0], "ms", baseline="direct")
    report.add("memory", "bare", 400.0, "MiB")
    report.add("memory", "ours", 500.0, "MiB", baseline="bare", samples=2)
    report.at_most("delay", 10.0, 2.0, "ms")
    report.at_least("fairness", 0.95, 0.9)
    report.left_out["gateway"] = "nginx is not installed"
    return report


@pytest.mark.parametrize(
    ("number", "unit", "told"),
    [
        (11956.7, "ms", "12.0 s"),
        (118.1, "ms", "118 ms"),
        (0.02314, "", "0.0231"),
        (13254.0, "1/s", "13,300 1/s"),
        (9.999, "", "10.00"),
        (0.0, "ms", "0 ms"),
        (-2.5, "ms", "-2.50 ms"),
    ],
)
def test_numbers_are_readable(number: float, unit: str, told: str) -> None:
    """Three digits that count, no powers of ten."""
    assert amount(number, unit) == told


def test_a_row_stands_beside_its_baseline(report: Report) -> None:
    """Percentiles in columns, the ratio of the middle one."""
    table = report.tables().splitlines()

    assert "| through |  | 2.00 ms | 12.0 s | 12.0 s | 10.0 | direct | 4 |" in table
    assert "| ours | 500 MiB |  |  |  | 1.25 | bare | 2 |" in table
    assert "| delay | at most 10.0 ms | 2.00 ms | met |" in table
    assert "| fairness | at least 0.950 | 0.900 | **missed** |" in table
    assert table[-1] == "- Left out: gateway (nginx is not installed)."


def test_the_document_gets_the_last_figures_and_keeps_the_rest(
    report: Report, tmp_path: Path
) -> None:
    """A second time they replace the first ones."""
    path = tmp_path / "performance.md"
    path.write_text(f"# Before\n{BEGIN}old\n{END}# After\n", encoding="utf-8")

    write_figures(report, path)
    once = path.read_text(encoding="utf-8")
    write_figures(report, path)

    assert path.read_text(encoding="utf-8") == once
    assert once.startswith("# Before\n")
    assert once.endswith("# After\n")
    assert "old" not in once
    assert "Measured on 2026-01-02 in 300 s: 2 cores" in once
    assert report.tables() in once


def test_a_document_without_a_place_is_left_alone(report: Report, tmp_path: Path) -> None:
    """Rather an error than figures that nobody finds."""
    path = tmp_path / "performance.md"
    path.write_text("# Before\n", encoding="utf-8")

    with pytest.raises(ValueError, match="no place"):
        write_figures(report, path)

    assert path.read_text(encoding="utf-8") == "# Before\n"


def test_the_figures_are_json(report: Report) -> None:
    """For programs."""
    document = json.loads(json.dumps(report.document()))

    assert document["rows"][1]["ratio"] == 10.0
    assert document["targets"][0]["met"] is True


def test_the_picture_is_drawn_where_it_can_be(report: Report, tmp_path: Path) -> None:
    """What draws is installed for `make bench` alone."""
    drawn = plot(report, tmp_path / "figures.png")

    assert drawn == (tmp_path / "figures.png").exists()


def test_percentiles_are_samples() -> None:
    """The smallest that so many are not above."""
    samples = [float(number) for number in range(1, 101)]

    assert [percentile(samples, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.99) == 7.0


def test_jain_s_index_tells_how_even_shares_are() -> None:
    """From 1/n to 1."""
    assert jain([5, 5, 5, 5]) == 1.0
    assert jain([20, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == 1.0
