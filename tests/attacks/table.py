"""docs/security.md's table of attacks: written from what the attacks came to when last tried.

`make test-attacks` takes it down, `make docs` writes the table, a test compares its rows with
the attacks there are.
"""

from __future__ import annotations

import ast
import fcntl
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.attacks.registry import ATTACKS, BOMBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Results = dict[str, dict[str, bool]]
"""Title → place → held."""

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / ".cache" / "attacks.json"
DOCUMENT = ROOT / "docs" / "security.md"
BEGIN = "<!-- attacks: written by `make docs` from the results of `make test-attacks` -->\n"
END = "<!-- end of attacks -->\n"

PLACES = {
    "root": "bubblewrap, runner is root",
    "user": "bubblewrap, runner is not",
    "container": "bubblewrap in the runner's container",
    "docker": "docker",
    "process": "process",
}
_HEAD = f"| attack | {' | '.join(PLACES.values())} |\n|---|{'---|' * len(PLACES)}\n"
_WORDS = {True: "held", False: "**not held**", None: "not tried"}


def title_of(function: Callable[..., object]) -> str:
    """Return the row's name for a test of a backend: its own name, as a sentence."""
    return _sentence(function.__name__)


def titles() -> Iterator[str]:
    """Yield the rows there have to be, in their order."""
    yield from (attack.title for attack in ATTACKS)
    yield from (title for title, *_ in BOMBS.values())
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _titles_in(node)


def _titles_in(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    if node.name.startswith("test_") and "attacker" in {a.arg for a in node.args.args}:
        yield _sentence(node.name)
    for call in ast.walk(node):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "note"
            and isinstance(call.args[0], ast.Constant)
        ):
            yield str(call.args[0].value)


def _sentence(name: str) -> str:
    words = name.removeprefix("test_").replace("_", " ")
    return words[0].upper() + words[1:]


def read_results() -> Results:
    """Return what is known from the last tries."""
    if not RESULTS.is_file():
        return {}
    results: Results = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def add_results(results: Results) -> None:
    """Keep *results* beside those of earlier tries; other processes may do so at the same time.

    Raises:
        PermissionError: The checkout is somebody else's.
    """
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = read_results()
        for title, row in results.items():
            kept[title] = kept.get(title, {}) | row
        RESULTS.write_text(json.dumps(kept), encoding="utf-8")


def written_rows(text: str) -> list[list[str]]:
    """Return the cells of the table in *text*, without its head."""
    _, _, rest = text.partition(BEGIN)
    table, _, _ = rest.partition(END)
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()[2:]
        if line.startswith("|")
    ]


def write(text: str, results: Results) -> str:
    """Return *text* with the table from *results*; what they don't tell stays as it stands."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    head = text.partition(BEGIN)[2].partition("\n")[0]
    names = [cell.strip() for cell in head.strip("|").split(" | ")[1:]]
    columns = [place for place in PLACES if PLACES[place] in names]
    old = {title: dict(zip(columns, cells, strict=True)) for title, *cells in written_rows(text)}
    rows = []
    for title in titles():
        known = results.get(title, {})
        cells = [
            _WORDS[known[place]] if place in known else old.get(title, {}).get(place, _WORDS[None])
            for place in PLACES
        ]
        rows.append(f"| {title} | {' | '.join(cells)} |\n")
    return before + BEGIN + _HEAD + "".join(rows) + END + after


if __name__ == "__main__":
    results = read_results()
    if not results:
        sys.exit("nothing was tried yet: make test-attacks")
    DOCUMENT.write_text(write(DOCUMENT.read_text(encoding="utf-8"), results), encoding="utf-8")
