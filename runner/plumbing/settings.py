"""How both services read their settings: once, frozen, from the environment.

A secret `NAME` may also come from a file named by `NAME_FILE` (compose secrets, or a file
descriptor like `/dev/fd/5`): then it stands in no environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

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


Settings = TypeVar("Settings", bound=ServiceSettings)


class BadSettings(ValueError):
    """The settings can't be used; the text says which and what to do, and shows no value."""


def load_settings(
    model: type[Settings], *, prefix: str, others: frozenset[str] = frozenset()
) -> Settings:
    """Read *model* from the environment.

    Args:
        model: The settings to read.
        prefix: Variables that begin so must be known: a typo is an error.
        others: Names with that prefix that belong to another part.

    Raises:
        BadSettings: A variable is unknown, a value can't be, a secret's file can't be read.
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
        return model(**_from_files(secrets, os.environ))
    except ValidationError as exc:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            for e in exc.errors(include_input=False, include_url=False)
        ]
        raise BadSettings("; ".join(problems)) from None


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
