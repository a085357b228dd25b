"""What stops a backup or a restore; each text says what to do, and nothing was lost."""

from __future__ import annotations


class BackupFailed(Exception):
    """It can't be done; the text says why."""


class ArchiveDamaged(BackupFailed):
    """The archive is not what was written once: cut off, changed, or none of ours."""


class KeysMissing(BackupFailed):
    """Users' API keys in the archive could not be decrypted with the keys that are here."""
