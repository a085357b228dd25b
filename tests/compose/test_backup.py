"""The drill with containers: backed up while it works, every volume destroyed, put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.compose.provider import LONG
from tests.support.compose import text_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.compose import Caller, ComposeStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


def backup(stack: ComposeStack, *words: str) -> str:
    """Run the command as docs/operations.md says."""
    return stack.compose("run", "--rm", "-T", "backup", *words)


def test_destroyed_volumes_are_restored(stack: ComposeStack, anna: Caller, backups: Path) -> None:
    """People are still signed in, their keys are set, what was told can be read, prompts work."""
    anna.call("PUT", "/opencode/key", {"api_key": "sk-anna-77af20"})
    finished = anna.start("say hello")
    told = anna.read(finished)
    halfway = anna.start(f"{LONG} backup")
    anna.read(halfway, until="text.delta")

    backup(stack, "create")
    [archive] = backups.glob("*.tar.gz")
    with pytest.raises(AssertionError, match="is running"):
        backup(stack, "restore", f"/backups/{archive.name}", "--force")
    stack.compose("down", "--volumes", "--timeout", "2")
    backup(stack, "verify", f"/backups/{archive.name}")
    backup(stack, "restore", f"/backups/{archive.name}")
    stack.compose("up", "--detach", "--wait", "--no-build")
    stack.until_healthy()

    key = anna.call("GET", "/opencode/key")
    assert (key["set"], key["last4"]) == (True, "af20")
    anna.seen = {finished: [], halfway: []}
    assert anna.read(finished) == told
    events = anna.read(halfway)
    assert text_of(events)
    assert events[-1]["code"] == "runner-restarted"
    assert "Hello from the provider." in anna.text("say hello again")
