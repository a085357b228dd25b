"""What PocketBase is set up with at each start."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from runner.plumbing.settings import BadSettings
from stack import first_run, parts, programs
from stack.secrets import open_secrets
from stack.settings import StackSettings

if TYPE_CHECKING:
    from pathlib import Path


async def set_up(data_dir: Path, **settings: Any) -> dict[str, Any]:
    """Set PocketBase up and return what is stored about its backups."""
    chosen = StackSettings(data_dir=data_dir, **settings)
    (data_dir / "tmp").mkdir(parents=True, exist_ok=True)
    secrets = open_secrets(data_dir / "secrets", {})
    await first_run.set_up(parts.pocketbase_set_up(chosen, secrets, {}, programs.pocketbase()))
    with closing(sqlite3.connect(data_dir / "pb_data" / "data.db")) as db:
        [[value]] = db.execute("SELECT value FROM _params WHERE id = 'settings'")
    backups: dict[str, Any] = json.loads(value)["backups"]
    return backups


async def test_backups_are_scheduled_as_the_settings_say(tmp_path: Path) -> None:
    """Nightly without any word; at each start anew; never, where that is wanted."""
    first = await set_up(tmp_path)
    changed = await set_up(tmp_path, pb_backups_cron="30 1 * * 0", pb_backups_keep=4)
    never = await set_up(tmp_path, pb_backups_cron="")

    assert (first["cron"], first["cronMaxKeep"]) == ("0 3 * * *", 7)
    assert (changed["cron"], changed["cronMaxKeep"]) == ("30 1 * * 0", 4)
    assert never["cron"] == ""


async def test_a_schedule_that_is_none_is_told(tmp_path: Path) -> None:
    """It names the setting."""
    with pytest.raises(BadSettings, match=r"PB_BACKUPS_….*cron"):
        await set_up(tmp_path, pb_backups_cron="every night")
