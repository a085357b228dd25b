"""PocketBase's migrations: there and back again."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

from tests.support.pocketbase import ROOT, directories, pocketbase_binary

if TYPE_CHECKING:
    from pathlib import Path

OURS = 4


def migrate(data_dir: Path, *words: str, migrations: Path | None = None) -> None:
    options = directories(data_dir, migrations) if migrations else directories(data_dir)
    subprocess.run(
        [pocketbase_binary(), "migrate", *words, *options],
        input=b"y\n",
        check=True,
        capture_output=True,
        timeout=60,
    )


def state(data_dir: Path) -> list[str]:
    """Return collections and settings, without what differs between any two databases."""
    with sqlite3.connect(f"file:{data_dir / 'data.db'}?mode=ro", uri=True) as db:
        rows = db.execute("select name, fields, createRule, options from _collections")
        found = [*map(repr, rows), *map(repr, db.execute("select id, value from _params"))]
    db.close()
    random = r'"secret":"[^"]*"|"_clone_\w+"|\d{4}-\d\d-\d\d[^"\']*'
    return sorted(re.sub(random, "-", row) for row in found)


def test_migrations_go_up_and_back_down(tmp_path: Path) -> None:
    """After the way back the database is as PocketBase itself makes it."""
    nothing = tmp_path / "none"
    nothing.mkdir()
    migrate(tmp_path / "plain", "up", migrations=nothing)

    migrate(tmp_path / "ours", "up")
    up = state(tmp_path / "ours")
    migrate(tmp_path / "ours", "down", str(OURS))
    down = state(tmp_path / "ours")
    migrate(tmp_path / "ours", "up")

    assert any("api_key" in row for row in up)
    assert any("OpenCode Multiuser" in row for row in up)
    assert sum("usage_by_" in row for row in up) == 2
    assert down == state(tmp_path / "plain")
    assert state(tmp_path / "ours") == up


def test_users_and_their_keys_survive_an_update_and_the_way_back(tmp_path: Path) -> None:
    """From the first release's schema to this one's, and back to it."""
    first = tmp_path / "first"
    first.mkdir()
    oldest, *newer = sorted((ROOT / "pb_migrations").glob("*.js"))
    (first / oldest.name).symlink_to(oldest)
    data = tmp_path / "data"
    migrate(data, "up", migrations=first)
    with closing(sqlite3.connect(data / "data.db")) as db, db:
        db.execute(
            "insert into users (id, email, password, tokenKey, api_key)"
            " values ('anna00000000000', 'anna@example.com', 'hash', 'token', 'enc:v1:x')"
        )

    migrate(data, "up")
    after = people(data)
    migrate(data, "down", str(len(newer)))

    assert after == people(data) == [("anna@example.com", "enc:v1:x")]


def people(data_dir: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(data_dir / "data.db")) as db:
        return list(db.execute("select email, api_key from users"))
