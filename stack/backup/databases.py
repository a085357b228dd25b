"""PocketBase's SQLite databases: copied while they are written to, checked, asked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

from stack.backup.failures import ArchiveDamaged, BackupFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASES = ("data.db", "auxiliary.db")
_BUSY_S = 30.0


def snapshot(source: Path, target: Path) -> None:
    """Copy *source* as it is at one moment; writers go on meanwhile.

    Raises:
        BackupFailed: It can't be read, or there is no room for the copy.
    """
    try:
        with closing(_read_only(source)) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)  # in one step: in many, each write of others would start it anew
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as exc:
        raise BackupFailed(f"{source} can't be copied: {exc}") from exc


def must_be_whole(database: Path) -> None:
    """Have SQLite look at every page.

    Raises:
        ArchiveDamaged: It found something.
    """
    try:
        with closing(_read_only(database)) as db:
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)")]
    except sqlite3.Error as exc:
        found = [str(exc)]
    if found != ["ok"]:
        raise ArchiveDamaged(f"{database.name} is damaged: {'; '.join(found)}")


def stored_api_keys(database: Path) -> list[str]:
    """Return users' API keys as they are stored."""
    with closing(_read_only(database)) as db:
        if "api_key" not in {row[1] for row in db.execute("PRAGMA table_info(users)")}:
            return []
        return [str(row[0]) for row in db.execute("SELECT api_key FROM users WHERE api_key != ''")]


def migrations(database: Path) -> list[str]:
    """Return the names of the migrations that were applied.

    Raises:
        BackupFailed: It is no database of PocketBase's.
    """
    try:
        with closing(_read_only(database)) as db:
            return [str(row[0]) for row in db.execute("SELECT file FROM _migrations ORDER BY file")]
    except sqlite3.OperationalError as exc:
        raise BackupFailed(f"{database.name} is not PocketBase's: {exc}") from exc


def is_in_use(database: Path) -> bool:
    """Whether another process has *database* open, even if it does nothing right now.

    Raises:
        BackupFailed: It can't be told.
    """
    if not database.exists():
        return False
    with closing(sqlite3.connect(database, timeout=0)) as db:
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise BackupFailed(f"{database} can't be opened: {exc}") from exc
            return True
        except sqlite3.DatabaseError:
            return False  # not one that could be used
        db.rollback()
    return False


def _read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=_BUSY_S)


def present(folder: Path) -> Iterator[Path]:
    """Yield the databases there are in PocketBase's *folder*."""
    yield from (folder / name for name in DATABASES if (folder / name).exists())
