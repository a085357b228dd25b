"""Put an archive back: it is unpacked beside the data and checked before that is touched."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from runner.plumbing.settings import BadSettings
from stack.backup import databases
from stack.backup.archive import unpack
from stack.backup.failures import ArchiveDamaged, BackupFailed, KeysMissing
from stack.backup.keys import keyring, present_secrets
from stack.backup.settings import POCKETBASE, SECRETS
from stack.lock import sole_user_of
from stack.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stack.backup.keys import Keyring
    from stack.backup.manifest import KeyUse, Manifest
    from stack.backup.settings import Places

_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was done.

    Attributes:
        manifest: Of the archive.
        kept: Where what was there before has gone.
    """

    manifest: Manifest
    kept: Sequence[Path]


def verify(archive: Path, secrets: Mapping[str, str]) -> tuple[Manifest, list[KeyUse]]:
    """Check every byte of *archive*; return its manifest and the keys that it needs from elsewhere.

    Raises:
        ArchiveDamaged: It would not be put back.
        BackupFailed: It can't be read.
    """
    with TemporaryDirectory(prefix="opencode-multiuser-") as folder:
        staged = {POCKETBASE: Path(folder) / POCKETBASE, SECRETS: Path(folder) / SECRETS}
        manifest = unpack(archive, staged)
        _must_have_whole_databases(staged[POCKETBASE])
        here = keyring(present_secrets(staged[SECRETS], {}) | dict(secrets))
        return manifest, _missing(manifest, here)


def restore(
    archive: Path,
    places: Places,
    environ: Mapping[str, str],
    *,
    force: bool = False,
    lose_keys: bool = False,
) -> Restored:
    """Put *archive* in the place of what is there, which is kept aside.

    Args:
        archive: What `create` wrote.
        places: Where it goes.
        environ: Where the operator's own secrets may stand.
        force: Also where there is something already.
        lose_keys: Also where users' API keys can't be decrypted afterwards.

    Raises:
        ArchiveDamaged: The archive is not whole.
        KeysMissing: Users' API keys could not be decrypted.
        BackupFailed: The system is running, there is something already, or no room.
    """
    with _nobody_works_on(places):
        if not force:
            _must_be_empty(places)
        stamp = datetime.now(UTC).strftime(_STAMP)
        targets = places.by_name()
        staged = {name: _beside(place, f"restoring-{stamp}") for name, place in targets.items()}
        try:
            manifest = unpack(archive, staged)
            _must_have_whole_databases(staged[POCKETBASE])
            _must_not_be_newer(manifest)
            secrets_folder = staged[SECRETS] if manifest.with_secrets else places.secrets
            if not lose_keys:
                _must_have_keys(
                    manifest, staged[POCKETBASE], present_secrets(secrets_folder, environ)
                )
            if not manifest.with_secrets:
                del targets[SECRETS]
            kept = _swap(targets, staged, stamp)
        except OSError as exc:
            raise BackupFailed(f"nothing was restored: {exc.strerror or exc}") from exc
        finally:
            for folder in staged.values():
                shutil.rmtree(folder, ignore_errors=True)
    return Restored(manifest=manifest, kept=kept)


@contextmanager
def _nobody_works_on(places: Places) -> Iterator[None]:
    """Keep a stack on this machine from starting while the block runs.

    Raises:
        BackupFailed: Something works with the data now.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_user_of(places.data_dir))
        except BadSettings as exc:
            raise BackupFailed(f"end the system before a restore: {exc}") from None
        database = places.pocketbase / databases.DATABASES[0]
        if databases.is_in_use(database):
            raise BackupFailed(f"PocketBase is running on {places.pocketbase}: end it first")
        if any(_is_locked(path) for path in places.spool.glob("*.ndjson")):
            raise BackupFailed(f"a gateway is running on {places.spool}: end it first")
        if _is_locked(places.runs):
            raise BackupFailed(f"a runner is running on {places.runs}: end it first")
        yield


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _must_be_empty(places: Places) -> None:
    for place in (places.pocketbase, places.runs, places.spool):
        if place.is_dir() and any(place.iterdir()):
            raise BackupFailed(f"{place} is not empty: with --force it is kept aside and replaced")


def _must_have_whole_databases(folder: Path) -> None:
    found = list(databases.present(folder))
    if not found or found[0].name != databases.DATABASES[0]:
        raise ArchiveDamaged(f"there is no {databases.DATABASES[0]} in it")
    for database in found:
        databases.must_be_whole(database)


def _must_not_be_newer(manifest: Manifest) -> None:
    ours = {path.name for path in (ROOT / "pb_migrations").glob("*.js")}
    unknown = [name for name in manifest.migrations if name.endswith(".js") and name not in ours]
    if unknown:
        raise BackupFailed(
            f"the backup is of the newer version {manifest.version}, whose database has "
            f"{unknown[-1]}: install that version, or a later one, and restore it there"
        )


def _must_have_keys(manifest: Manifest, folder: Path, secrets: Mapping[str, str]) -> None:
    """Try the keys that are here on what is stored.

    Raises:
        KeysMissing: They don't open it; names the keys that would.
    """
    here = keyring(secrets)
    stored = databases.stored_api_keys(folder / databases.DATABASES[0])
    unreadable = sum(here.opens(value) is None for value in stored)
    if unreadable <= manifest.unreadable_keys:
        return
    needed = ", ".join(
        f"{use.name} with fingerprint {use.fingerprint} ({use.users} users)"
        for use in _missing(manifest, here)
    )
    raise KeysMissing(
        f"{unreadable} users' API keys can't be decrypted here. Needed: {needed}. Put the key "
        "into DATA_DIR/secrets or the setting, or use --lose-keys: then those users must set "
        "their API keys again. Nothing was restored"
    )


def _missing(manifest: Manifest, here: Keyring) -> list[KeyUse]:
    present = {use.fingerprint for use in here.uses(())[0]}
    return [use for use in manifest.keys if use.users and use.fingerprint not in present]


def _beside(place: Path, mark: str) -> Path:
    """Return a folder on the file system of *place*: in it, where it is a mount point."""
    return place / f".{mark}" if place.is_mount() else place.with_name(f".{place.name}.{mark}")


def _swap(targets: Mapping[str, Path], staged: Mapping[str, Path], stamp: str) -> list[Path]:
    """Put what is staged where it belongs, and what is there aside; all of it or nothing.

    Returns:
        Where the old things are.
    """
    moved: list[tuple[Path, Path]] = []
    kept: list[Path] = []
    try:
        for name, place in targets.items():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = _beside(place, f"before-{stamp}")
            ours = {aside, staged[name]}
            if old := [child for child in place.iterdir() if child not in ours]:
                aside.mkdir(mode=0o700)
                kept.append(aside)
                _move(old, aside, moved)
            if staged[name].is_dir():
                _move(list(staged[name].iterdir()), place, moved)
    except OSError:
        for source, target in reversed(moved):
            target.rename(source)
        raise
    return kept


def _move(children: Sequence[Path], to: Path, moved: list[tuple[Path, Path]]) -> None:
    for child in children:
        target = to / child.name
        child.rename(target)
        moved.append((child, target))
