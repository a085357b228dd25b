"""What the single-machine stack itself needs to know: addresses, ports and first accounts."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat

from runner.plumbing.settings import BadSettings, ServiceSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: migrations, hooks, pages and installed programs are found from here."""

_WILDCARDS = frozenset({"", "0.0.0.0", "::", "[::]"})  # noqa: S104 (recognised, not bound)
_OWN_PREFIX = "STACK_"


class StackSettings(ServiceSettings):
    """Settings of `python -m stack`; a port of 0 means: any free one."""

    data_dir: Path = Field(default=Path(".data"), description="Everything the stack writes.")
    gateway_host: str = Field(default="127.0.0.1", description="Address of the public origin.")
    gateway_port: int = Field(default=8080, ge=0, le=65535, description="Its port.")
    pocketbase_port: int = Field(default=8090, ge=0, le=65535, description="PocketBase's port.")
    pocketbase_url: str | None = Field(default=None, description="Follows from the port here.")
    runner_host: str = Field(default="127.0.0.1", description="Address the runner listens on.")
    port: int = Field(default=3001, ge=0, le=65535, description="The runner's port.")
    runner_url: str | None = Field(default=None, description="Follows from the port here.")
    pb_superuser_email: str = Field(
        default="admin@example.com",
        min_length=3,
        description="First login to the admin UI, and the gateway's service account.",
    )
    pb_backups_cron: str = Field(
        default="0 3 * * *",
        description="When PocketBase backs its database up by itself (UTC, as in crontab); "
        "empty: never.",
    )
    pb_backups_keep: int = Field(
        default=7, ge=1, description="How many of those it keeps, in `DATA_DIR/pb_data/backups`."
    )
    demo_user_email: str = Field(
        default="demo@example.com",
        min_length=3,
        description="Made when there are no users yet.",
    )
    opencode_bin: Path | None = None
    runner_sandbox: str = ""
    runner_spawner_socket: Path | None = None
    runner_drain_s: NonNegativeFloat = 0.0

    @property
    def temporary_dir(self) -> Path:
        """Where the parts put temporary files: nothing is written elsewhere."""
        return self.data_dir / "tmp"

    @property
    def starts_spawner(self) -> bool:
        """Whether sandboxes are containers, and nobody else starts them."""
        return self.runner_sandbox == "docker" and self.runner_spawner_socket is None

    @property
    def spawner_socket(self) -> Path:
        """Where the spawner that was started here listens."""
        return self.temporary_dir / "spawner"

    @property
    def origin(self) -> str:
        """The public origin, as a browser on this machine writes it."""
        return f"http://{_reachable(self.gateway_host)}:{self.gateway_port}"

    @property
    def pocketbase_address(self) -> str:
        """Where the gateway finds PocketBase."""
        return f"http://127.0.0.1:{self.pocketbase_port}"

    @property
    def runner_address(self) -> str:
        """Where the gateway finds the runner."""
        return f"http://{_reachable(self.runner_host)}:{self.port}"


def load() -> StackSettings:
    """Read the stack's settings from the environment.

    Raises:
        BadSettings: A value can't be, or contradicts that the stack starts the parts itself.
    """
    settings = load_settings(StackSettings, prefix=_OWN_PREFIX)
    for name, given, ours, port in (
        ("POCKETBASE_URL", settings.pocketbase_url, settings.pocketbase_address, "POCKETBASE_PORT"),
        ("RUNNER_URL", settings.runner_url, settings.runner_address, "PORT"),
    ):
        if given and given.rstrip("/") != ours:
            raise BadSettings(f"{name} is for parts that run elsewhere; here set {port} instead")
    return settings.model_copy(update={"data_dir": settings.data_dir.absolute()})


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Replace this process's environment while the block runs.

    So a service's own `load` can check the environment it is going to get. Call it before
    any thread is started.
    """
    ours = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(variables)
        yield
    finally:
        os.environ.clear()
        os.environ.update(ours)


def _reachable(host: str) -> str:
    """Return how to reach a server that listens on *host* from this machine."""
    if host in _WILDCARDS:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
