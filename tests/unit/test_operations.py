"""docs/operations.md says what to do about whatever can go wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gateway.settings
import runner.settings
import stack.backup.settings
import stack.settings
from runner.contract.messages import codes

TEXT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
OF_COMPOSE = {
    *("RUNNER_APPARMOR", "RUNNER_CONTAINER_MEMORY", "RUNNER_STOP_GRACE_PERIOD"),
    *("GATEWAY_HOST", "GATEWAY_PORT"),
}


@pytest.mark.parametrize("code", codes())
def test_every_code_is_explained(code: str) -> None:
    """In the table at its end."""
    table = TEXT.partition("### Every code")[2]

    assert f"`{code}`" in table


def test_settings_it_names_are_there() -> None:
    """A renamed setting is renamed here too."""
    models = (
        stack.settings.StackSettings,
        gateway.settings.Settings,
        runner.settings.Settings,
        stack.backup.settings.BackupSettings,
    )
    known = {name.upper() for model in models for name in model.model_fields} | OF_COMPOSE
    named = set(re.findall(r"`((?:GATEWAY|RUNNER|PB|BACKUP)_[A-Z_]+[A-Z])", TEXT))

    assert named - known == set()
