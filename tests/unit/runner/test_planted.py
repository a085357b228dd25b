"""What lies in a workspace or HOME is out of OpenCode's sight while it boots, and untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.agents.opencode import furnish_home
from runner.agents.planted import out_of_sight

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run directory, furnished."""
    for name in ("home", "workspace"):
        (tmp_path / name).mkdir()
    furnish_home(tmp_path / "home")
    return tmp_path


async def test_configuration_is_away_and_comes_back(directory: Path) -> None:
    """Files, folders and links; a link is moved as it is, what it leads to stays."""
    workspace, elsewhere = directory / "workspace", directory / "elsewhere"
    elsewhere.mkdir()
    (workspace / "opencode.json").write_text("{}")
    (workspace / ".opencode").symlink_to(elsewhere)
    (workspace / "opencode.jsonc").mkdir()
    (workspace / "kept").write_text("kept")
    before = sorted(path.name for path in workspace.iterdir())

    async with out_of_sight(directory):
        assert [path.name for path in workspace.iterdir()] == ["kept"]
        assert elsewhere.is_dir()

    assert sorted(path.name for path in workspace.iterdir()) == before
    assert (workspace / ".opencode").readlink() == elsewhere


async def test_what_was_made_meanwhile_is_kept(directory: Path) -> None:
    """Nothing is written over."""
    config = directory / "workspace" / "opencode.json"
    config.write_text("old")

    async with out_of_sight(directory):
        config.write_text("new")

    assert config.read_text() == "new"


async def test_home_is_furnished_anew(directory: Path) -> None:
    """What keeps OpenCode from installing packages is there, and nothing else."""
    planted = directory / "home" / ".config" / "opencode" / "opencode.json"
    planted.write_text("{}")

    async with out_of_sight(directory):
        names = {path.name for path in planted.parent.iterdir()}

    assert names == {"node_modules", "package.json", "package-lock.json"}


async def test_a_link_in_the_place_of_a_folder_is_not_followed(directory: Path) -> None:
    """Not even where the whole workspace is one."""
    outside = directory / "outside"
    outside.mkdir()
    (outside / "opencode.json").write_text("{}")
    (directory / "workspace").rmdir()
    (directory / "workspace").symlink_to(outside)

    with pytest.raises(NotADirectoryError):
        async with out_of_sight(directory):
            pass

    assert (outside / "opencode.json").exists()
