"""The arrows between modules, and the README, checked against the code."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack import readme

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
LEAVES = ("runner.contract", "runner.plumbing")
MODULES = sorted(
    path
    for package in ("gateway", "runner", "stack")
    for path in (ROOT / package).rglob("*.py")
    if path.stat().st_size
)
# From what is started to what only is used; packages in between may use what stands below.
LAYERS = {"__main__": 0, "app": 1, "routes": 2, "handlers": 3, "runs": 4}
BELOW = 5

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path))  # noqa: PLW0108 - defined below


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def our_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in {"gateway", "runner", "stack"})


def layer(module: str) -> int:
    parts = module.split(".")
    return LAYERS.get(parts[1], BELOW) if len(parts) > 1 else BELOW


def is_leaf(module: str) -> bool:
    return module.startswith(LEAVES)


@every_module
def test_imports_point_down(path: Path) -> None:
    """Handlers use the use case, the use case uses adapters, never the other way."""
    module = name_of(path)
    if module.endswith(".keys"):
        return  # typed names of what the composition root builds; imports them for their types
    for used in our_imports(path):
        if used.split(".")[0] == module.split(".")[0]:
            assert layer(module) <= layer(used), f"{module} must not know {used}"


@every_module
def test_services_meet_in_the_contract_only(path: Path) -> None:
    """The gateway knows the runner's leaves; the runner knows neither gateway nor stack."""
    module = name_of(path)
    service = module.split(".")[0]
    for used in our_imports(path):
        other = used.split(".")[0]
        if service in {"stack", other} or used == "runner":
            continue
        assert service == "gateway", f"{module} must not know {used}"
        assert is_leaf(used), f"{module} must not know {used}"


@every_module
def test_leaves_stand_alone(path: Path) -> None:
    """The contract needs nothing of ours but itself; plumbing needs the contract at most."""
    module = name_of(path)
    if module.startswith("runner.contract"):
        assert all(used.startswith("runner.contract") for used in our_imports(path))
        assert "aiohttp" not in path.read_text(encoding="utf-8")
    elif module.startswith("runner.plumbing"):
        assert all(is_leaf(used) for used in our_imports(path))


def test_the_readme_lists_the_settings_there_are() -> None:
    """README's table is the models' own: `make docs` writes it."""
    assert readme.settings_table() in (ROOT / "README.md").read_text(encoding="utf-8")
