"""OpenCode's history of sessions: a SQLite database in its HOME."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DATABASE = ".local/share/opencode/opencode.db"
_LOCK_TIMEOUT_S = 2.0
_STATEMENTS = (
    "DELETE FROM event_sequence WHERE aggregate_id = ?",
    "DELETE FROM session WHERE id = ?",  # and with it its messages and their parts
)


def forget_session(home: Path, session_id: str) -> bool:
    """Take *session_id* out of the history in *home*; blocks. Return whether it is out.

    OpenCode can close a session over ACP, not delete it. It may be running meanwhile. Only for a
    HOME that no tenant has had in hand yet: nothing is checked for links.
    """
    path = home / _DATABASE
    if not path.is_file():
        return True
    try:
        with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S)) as database, database:
            database.execute("PRAGMA foreign_keys = ON")
            for statement in _STATEMENTS:
                database.execute(statement, (session_id,))
    except sqlite3.Error:
        return False
    return True
