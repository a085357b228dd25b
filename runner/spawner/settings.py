"""The spawner's settings: read once by `__main__`, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from runner.plumbing.settings import ServiceSettings, load_settings


class Settings(ServiceSettings):
    """Settings of the spawner; `DOCKER_HOST` and the like are the Docker SDK's own."""

    spawner_socket: Path = Field(
        description="Unix socket that the spawner (`python -m runner.spawner`) listens on."
    )
    spawner_runs_dir: Path = Field(
        description="Directory of the run directories (the runner's `DATA_DIR/sandboxes`), by a "
        "path that is the engine's too.",
    )
    spawner_image: str = Field(
        default="opencode-multiuser/sandbox:dev", description="Image of every sandbox."
    )
    spawner_runtime: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="OCI runtime of every sandbox, e.g. `runsc`; empty: the engine's default.",
    )
    spawner_client_uid: int | None = Field(
        default=None, ge=0, description="User that the runner runs as; left out: the spawner's own."
    )
    spawner_max_runs: PositiveInt = Field(default=64, description="Containers at once.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="`debug`, `info`, `warning` or `error`."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`json` or `console`; auto: JSON when not on a terminal."
    )


def load() -> Settings:
    """Read the settings; see `load_settings` for the errors."""
    return load_settings(Settings, prefix="SPAWNER_")
