"""The parts of the stack as data: what to start, with which environment and descriptors."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from gateway.settings import Settings as GatewaySettings
from runner.settings import Settings as RunnerSettings
from stack.secrets import NAMES as SECRET_NAMES
from stack.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stack.secrets import Secret
    from stack.settings import StackSettings

_SYSTEM = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        *("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    )
)
_OUTWARD = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "XDG_RUNTIME_DIR"})
"""Only the runner speaks to anything outside this machine; a proxy's URL may hold a password."""

_RUNNER_GRACE_S = 20.0  # to end runs, once they have had their time


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the stack.

    Attributes:
        name: As people call it.
        command: What to execute.
        env: Its whole environment.
        pass_fds: Descriptors it inherits besides stdout and stderr.
        grace_s: How long it may take to end by itself.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    grace_s: float = 10.0


class _Environment(TypedDict):
    env: Mapping[str, str]
    pass_fds: tuple[int, ...]


def pocketbase(
    settings: StackSettings, secrets: Mapping[str, Secret], environ: Mapping[str, str], binary: Path
) -> Part:
    """PocketBase's server, on loopback only."""
    return Part(
        name="PocketBase",
        command=(
            *(str(binary), "serve", "--http", f"127.0.0.1:{settings.pocketbase_port}"),
            *_pocketbase_folders(settings),
            *("--hooksDir", str(ROOT / "pb_hooks"), "--publicDir", str(ROOT / "pb_public")),
            *("--automigrate=false", "--hooksWatch=false", "--indexFallback=false"),
        ),
        **_environment(settings, environ, secrets, needed={"KEY_SEALING_KEY"}),
    )


def pocketbase_set_up(
    settings: StackSettings, secrets: Mapping[str, Secret], environ: Mapping[str, str], binary: Path
) -> Part:
    """The command that prepares PocketBase's accounts before its server starts."""
    return Part(
        name="PocketBase's set-up",
        command=(
            *(str(binary), "set-up", *_pocketbase_folders(settings)),
            *("--hooksDir", str(ROOT / "stack" / "pocketbase"), "--automigrate=false"),
        ),
        **_environment(
            settings,
            environ,
            secrets,
            needed={"PB_SUPERUSER_PASSWORD", "DEMO_USER_PASSWORD"},
            names={"ENVIRONMENT"},
            extra={
                "PB_SUPERUSER_EMAIL": settings.pb_superuser_email,
                "PB_BACKUPS_CRON": settings.pb_backups_cron,
                "PB_BACKUPS_KEEP": str(settings.pb_backups_keep),
                "DEMO_USER_EMAIL": settings.demo_user_email,
            },
        ),
    )


def runner(
    settings: StackSettings, secrets: Mapping[str, Secret], environ: Mapping[str, str]
) -> Part:
    """The runner: the only part that gets the operator's key."""
    return Part(
        name="runner",
        command=(sys.executable, "-m", "runner"),
        grace_s=_RUNNER_GRACE_S + settings.runner_drain_s,
        **_environment(
            settings,
            environ,
            secrets,
            needed=_secrets_of(RunnerSettings),
            names=_names_of(RunnerSettings) | _OUTWARD,
            prefixes=("RUNNER_", "PYTHON"),
            extra={
                "DATA_DIR": str(settings.data_dir),
                "RUNNER_HOST": settings.runner_host,
                "PORT": str(settings.port),
                **(
                    {"RUNNER_SPAWNER_SOCKET": str(settings.spawner_socket)}
                    if settings.starts_spawner
                    else {}
                ),
            },
        ),
    )


def spawner(settings: StackSettings, environ: Mapping[str, str]) -> Part:
    """The spawner: the only part that knows the Docker engine; it gets no secret."""
    return Part(
        name="spawner",
        command=(sys.executable, "-m", "runner.spawner"),
        **_environment(
            settings,
            environ,
            {},
            needed=(),
            names={"LOG_LEVEL", "LOG_FORMAT"},
            prefixes=("SPAWNER_", "DOCKER_", "PYTHON"),
            extra={
                "SPAWNER_SOCKET": str(settings.spawner_socket),
                "SPAWNER_RUNS_DIR": str(settings.data_dir / "sandboxes"),
            },
        ),
    )


def gateway(
    settings: StackSettings, secrets: Mapping[str, Secret], environ: Mapping[str, str]
) -> Part:
    """The gateway: the only part that others reach."""
    return Part(
        name="gateway",
        command=(sys.executable, "-m", "gateway"),
        **_environment(
            settings,
            environ,
            secrets,
            needed=_secrets_of(GatewaySettings),
            names=_names_of(GatewaySettings),
            prefixes=("GATEWAY_", "PYTHON"),
            extra={
                "GATEWAY_HOST": settings.gateway_host,
                "GATEWAY_PORT": str(settings.gateway_port),
                "DATA_DIR": str(settings.data_dir),
                "POCKETBASE_URL": settings.pocketbase_address,
                "RUNNER_URL": settings.runner_address,
                "PB_SUPERUSER_EMAIL": settings.pb_superuser_email,
            },
        ),
    )


def _pocketbase_folders(settings: StackSettings) -> tuple[str, ...]:
    data = str(settings.data_dir / "pb_data")
    return ("--dir", data, "--migrationsDir", str(ROOT / "pb_migrations"))


def _environment(
    settings: StackSettings,
    environ: Mapping[str, str],
    secrets: Mapping[str, Secret],
    *,
    needed: Iterable[str],
    names: Iterable[str] = (),
    prefixes: tuple[str, ...] = (),
    extra: Mapping[str, str] | None = None,
) -> _Environment:
    """Build an environment from what a part knows: nothing else of ours gets into it."""
    wanted = _SYSTEM | set(names)
    withheld = SECRET_NAMES | {f"{name}_FILE" for name in SECRET_NAMES}
    env = {
        name: value
        for name, value in environ.items()
        if (name.upper() in wanted or name.upper().startswith(("LC_", *prefixes)))
        and name.upper() not in withheld
    }
    mine = {name: secrets[name] for name in sorted(needed) if name in secrets}
    env |= {f"{name}_FILE": str(secret.path) for name, secret in mine.items()}
    env |= extra or {}
    env["TMPDIR"] = str(settings.temporary_dir)
    env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", os.defpath)))
    fds = tuple(secret.fd for secret in mine.values() if secret.fd is not None)
    return {"env": env, "pass_fds": fds}


def _names_of(model: type[GatewaySettings | RunnerSettings]) -> set[str]:
    return {name.upper() for name in model.model_fields}


def _secrets_of(model: type[GatewaySettings | RunnerSettings]) -> set[str]:
    return _names_of(model) & SECRET_NAMES
