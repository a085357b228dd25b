"""The settings table in README.md, made from the settings themselves.

`make docs` writes it anew; a test compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gateway.settings
import runner.settings
import runner.spawner.settings
import stack.backup.settings
import stack.settings
from stack.settings import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo

BEGIN = "<!-- settings: written by `make docs` -->\n"
END = "<!-- end of settings -->\n"

_MODELS = (
    stack.settings.StackSettings,
    gateway.settings.Settings,
    runner.settings.Settings,
    runner.spawner.settings.Settings,
    stack.backup.settings.BackupSettings,
)
_GENERATED = frozenset(
    {"runner_token", "pb_superuser_password", "key_encryption_keys", "key_sealing_key"}
)
_FOLLOW = frozenset({"pocketbase_url", "runner_url"})
_BY_HAND = (
    "| `DEMO_USER_PASSWORD` | generated | The demo user's password. |",
    "| `POCKETBASE_URL`, `RUNNER_URL` | from the ports | For a gateway that is run alone. |",
)


def settings_table() -> str:
    """Return the table in Markdown: every setting, its default and what it means."""
    fields: dict[str, FieldInfo] = {}
    for model in _MODELS:
        for name, field in model.model_fields.items():
            if name not in fields or not fields[name].description:
                fields[name] = field
    rows = [
        f"| `{name.upper()}` | {_default(name, field)} | {field.description or ''} |"
        for name, field in fields.items()
        if name not in _FOLLOW
    ]
    return "\n".join(["| name | default | meaning |", "|---|---|---|", *rows, *_BY_HAND]) + "\n"


def write_table(readme: Path) -> None:
    """Replace the table in *readme*."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + settings_table() + END + after, encoding="utf-8")


def _default(name: str, field: FieldInfo) -> str:
    if name in _GENERATED:
        return "generated"
    if field.is_required():
        return "needed"
    value = field.default
    if value in (None, "", ()):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


if __name__ == "__main__":
    write_table(ROOT / "README.md")
