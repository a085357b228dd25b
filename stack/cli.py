"""`opencode-multiuser`: what operators do beside running the system."""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads annotations
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from gateway.version import version
from runner.plumbing.settings import BadSettings, refuse
from stack.backup import settings as backup_settings
from stack.backup.create import PREFIX, SUFFIX
from stack.backup.create import create as make_archive
from stack.backup.failures import BackupFailed
from stack.backup.keys import present_secrets
from stack.backup.restore import restore as put_back
from stack.backup.restore import verify as check

if TYPE_CHECKING:
    from stack.backup.manifest import Manifest

_FAILED = 1
_MIB = 1 << 20

app = App(name="opencode-multiuser", help=__doc__, version=version)
backup = App(name="backup", help="Back up a running system, and put a backup back.")
app.command(backup)

_Flag = Parameter(negative=())


@backup.command
def create(*, to: Path | None = None, with_secrets: Annotated[bool, _Flag] = False) -> None:
    """Back up database, uploaded files, run logs and waiting records while the system runs.

    Args:
        to: Folder to write into; left out: BACKUP_DIR, or DATA_DIR/backups.
        with_secrets: Put DATA_DIR/secrets and the secrets in the settings in as well. Whoever has
            that file can read users' API keys.
    """
    settings = backup_settings.load()
    places = settings.places
    secrets = present_secrets(places.secrets, os.environ)
    archive = make_archive(places, secrets, to=to or settings.archives, with_secrets=with_secrets)
    _say(f"{archive} ({archive.stat().st_size / _MIB:.1f} MiB)")
    if not with_secrets:
        _say("Without KEY_ENCRYPTION_KEYS and KEY_SEALING_KEY nobody can read the API keys in it:")
        _say("keep a copy of those too, elsewhere.")


@backup.command(name="list")
def list_(*, folder: Annotated[Path | None, Parameter(name="--in")] = None) -> None:
    """List the backups there are, oldest first.

    Args:
        folder: Where to look; left out: BACKUP_DIR, or DATA_DIR/backups.
    """
    for archive in sorted((folder or backup_settings.load().archives).glob(f"{PREFIX}*{SUFFIX}")):
        _say(f"{archive}  {archive.stat().st_size / _MIB:.1f} MiB")


@backup.command
def verify(archive: Path) -> None:
    """Check every byte of a backup, and whether the keys that it needs are here.

    Args:
        archive: What `backup create` wrote.
    """
    places = backup_settings.load().places
    manifest, missing = check(archive, present_secrets(places.secrets, os.environ))
    _say(f"{archive} is whole: {_summary(manifest)}")
    for use in missing:
        _say(f"not here: {use.name} with fingerprint {use.fingerprint}, for {use.users} users")


@backup.command
def restore(
    archive: Path,
    *,
    force: Annotated[bool, _Flag] = False,
    lose_keys: Annotated[bool, _Flag] = False,
) -> None:
    """Put a backup back; the system must not be running.

    Args:
        archive: What `backup create` wrote.
        force: Replace what is there; it is kept aside.
        lose_keys: Restore also where users' API keys can't be decrypted then.
    """
    places = backup_settings.load().places
    done = put_back(archive, places, os.environ, force=force, lose_keys=lose_keys)
    _say(f"restored {_summary(done.manifest)}")
    for folder in done.kept:
        _say(f"what was there before is in {folder}; remove it once all is well")


def _summary(manifest: Manifest) -> str:
    return (
        f"made {manifest.created_at} by version {manifest.version}, {len(manifest.members)} files, "
        f"{'with' if manifest.with_secrets else 'without'} secrets"
    )


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")


def main() -> None:
    """Run the command; what can't be is told in one line."""
    try:
        app()
    except BadSettings as exc:
        refuse("opencode-multiuser", exc)
    except BackupFailed as exc:
        sys.stderr.write(f"opencode-multiuser: {exc}\n")
        sys.exit(_FAILED)


if __name__ == "__main__":
    main()
