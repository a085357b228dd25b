"""Where the data is that is backed up, and the keys that users' API keys are encrypted with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, SecretStr

from runner.plumbing.settings import ServiceSettings, load_settings
from stack.settings import ROOT

POCKETBASE = "pb_data"
RUNS = "runs"
SPOOL = "spool"
SECRETS = "secrets"


class BackupSettings(ServiceSettings):
    """Settings of `opencode-multiuser backup`."""

    data_dir: Path = Field(default=Path(".data"), description="Everything the stack writes.")
    backup_dir: Path | None = Field(
        default=None, description="Where backups are written; left out: `DATA_DIR/backups`."
    )
    backup_pocketbase_dir: Path | None = Field(
        default=None, description="PocketBase's data, where it is not `DATA_DIR/pb_data`."
    )
    backup_runs_dir: Path | None = Field(
        default=None, description="Run logs, where they are not `DATA_DIR/runs`."
    )
    backup_spool_dir: Path | None = Field(
        default=None, description="The gateway's spool, where it is not `DATA_DIR/spool`."
    )
    key_encryption_keys: SecretStr | None = None
    key_sealing_key: SecretStr | None = None

    @property
    def archives(self) -> Path:
        """Where archives are written and listed."""
        return self.backup_dir or self.data_dir / "backups"

    @property
    def places(self) -> Places:
        """Where everything is that a backup holds."""
        return Places(
            data_dir=self.data_dir,
            pocketbase=self.backup_pocketbase_dir or self.data_dir / POCKETBASE,
            runs=self.backup_runs_dir or self.data_dir / RUNS,
            spool=self.backup_spool_dir or self.data_dir / SPOOL,
            secrets=self.data_dir / SECRETS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The directories that a backup is made of.

    Attributes:
        data_dir: What a stack on this machine locks.
        pocketbase: Databases and uploaded files.
        runs: Run logs.
        spool: Records that wait for PocketBase.
        secrets: Those that were generated.
    """

    data_dir: Path
    pocketbase: Path
    runs: Path
    spool: Path
    secrets: Path

    def by_name(self) -> dict[str, Path]:
        """Return each by the name of its folder in an archive."""
        return {
            POCKETBASE: self.pocketbase,
            RUNS: self.runs,
            SPOOL: self.spool,
            SECRETS: self.secrets,
        }


def load() -> BackupSettings:
    """Read the settings, paths as `make run` reads them; see `load_settings` for the errors."""
    settings = load_settings(BackupSettings, prefix="BACKUP_")
    return settings.model_copy(update={"data_dir": ROOT / settings.data_dir})
