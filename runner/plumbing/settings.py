"""How both services read their settings: once, frozen, from the environment.

A secret `NAME` may also come from a file named by `NAME_FILE` (compose secrets, or a file
descriptor like `/dev/fd/5`): then it stands in no environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from runner.plumbing.strength import is_weak

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_USAGE = 2

_FOREIGN = frozenset(
    f"RUNNER_{word}"
    for word in (
        *("ARCH", "DEBUG", "ENVIRONMENT", "NAME", "OS", "TEMP", "TOOL_CACHE"),
        *("TRACKING_ID", "WORKSPACE", "USER", "PERFLOG", "ALLOW_RUNASROOT"),
    )
)
"""Set by common CI systems on every job; not ours, so no typos of ours either."""


class ServiceSettings(BaseSettings):
    """Base of both services' settings: frozen, names as the README's table has them."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=False, hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = Field(
        default="development",
        description="`production` refuses weak secrets, and `RUNNER_SANDBOX=process`.",
    )


Settings = TypeVar("Settings", bound=ServiceSettings)


class BadSettings(ValueError):
    """The settings can't be used; the text says which and what to do, and shows no value."""


def load_settings(
    model: type[Settings],
    *,
    prefix: str,
    others: frozenset[str] = frozenset(),
    ours: frozenset[str] = frozenset(),
) -> Settings:
    """Read *model* from the environment.

    Args:
        model: The settings to read.
        prefix: Variables that begin so must be known: a typo is an error.
        others: Names with that prefix that belong to another part.
        ours: Secrets that an operator makes, not somebody else: weak ones are refused in
            production.

    Raises:
        BadSettings: A variable is unknown, a value can't be, a secret's file can't be read, a
            secret is weak.
    """
    secrets = {
        name.upper()
        for name, field in model.model_fields.items()
        if "SecretStr" in str(field.annotation)
    }
    known = {name.upper() for name in model.model_fields} | others | _FOREIGN
    known |= {f"{name}_FILE" for name in known}
    given = (name for name in os.environ if name.upper().startswith(prefix))
    unknown = sorted(name for name in given if name.upper() not in known)
    if unknown:
        raise BadSettings(f"unknown settings: {', '.join(unknown)} (see the table in README.md)")
    try:
        settings = model(**_from_files(secrets, os.environ))
    except ValidationError as exc:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            for e in exc.errors(include_input=False, include_url=False)
        ]
        raise BadSettings("; ".join(problems)) from None
    if settings.environment == "production":
        _refuse_weak(settings, ours)
    return settings


def _refuse_weak(settings: ServiceSettings, names: frozenset[str]) -> None:
    for name in sorted(names):
        secret = getattr(settings, name.lower())
        for value in secret if isinstance(secret, tuple) else (secret,):
            if value is not None and is_weak(value.get_secret_value()):
                raise BadSettings(
                    f"{name} is too weak for ENVIRONMENT=production (`make secrets` makes one)"
                )


def _from_files(names: set[str], environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(names):
        path = environ.get(f"{name}_FILE")
        if not path:
            continue
        if environ.get(name):
            raise BadSettings(f"{name} and {name}_FILE are both set; keep one of them")
        try:
            found[name.lower()] = SecretStr(Path(path).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as exc:
            raise BadSettings(f"{name}_FILE can't be read: {type(exc).__name__}") from exc
    return found


def refuse(service: str, reason: object) -> NoReturn:
    """End the process with one line that says what to mend."""
    sys.stderr.write(f"{service}: {reason}\n")
    raise SystemExit(EXIT_USAGE)
