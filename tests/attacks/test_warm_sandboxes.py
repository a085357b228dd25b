"""Whoever had a warm sandbox leaves nothing behind for who gets the next one."""

from __future__ import annotations

import base64
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.attacks.conftest import WHO
from tests.support.fake_provider import Plan, fake_provider
from tests.support.ordinary_user import UID
from tests.support.processes import mentioning
from tests.support.runner import run_runner, run_runner_as_user, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.contract.events import RunEvent
    from tests.attacks.conftest import Verdicts

STARTERS = {"root": run_runner, "user": run_runner_as_user}

# What is planted bears a word of its own in each kind, by which it would be found again.
FILES, SHELL, STATE, JOBS = "planted-file", "planted-shell", "planted-state", "planted-job"

PLANT = f"""
cd /
data=~/.local/share/opencode config=~/.config/opencode
mkdir -p $config/plugin $config/agent $data/storage /workspace/.opencode/plugin ~/.opencode
echo {FILES} | tee ~/file /workspace/file /workspace/.envrc /tmp/file /dev/shm/file \\
  /var/tmp/file /run/file /usr/local/bin/ls >/dev/null 2>&1
ln -s /tmp/{FILES} ~/{FILES}
echo {SHELL} | tee ~/.bash_history ~/.profile ~/.bashrc ~/.gitconfig ~/.ssh-config \\
  /etc/profile.d/x.sh >/dev/null 2>&1
echo '# {STATE}' | tee $config/AGENTS.md /workspace/AGENTS.md $data/storage/x $data/log/x >/dev/null
echo '{{"username":"{STATE}"}}' \\
  | tee $config/opencode.json /workspace/opencode.json $data/auth.json >/dev/null
echo 'require("fs").writeFileSync("/tmp/{STATE}","")' | tee $config/plugin/x.js \\
  /workspace/.opencode/plugin/x.js ~/.opencode/x.js >/dev/null
endless='while :; do sleep 1; done'
setsid bash -c "$endless" {JOBS}-setsid >/dev/null 2>&1 </dev/null &
nohup bash -c "$endless" {JOBS}-nohup >/dev/null 2>&1 </dev/null &
(setsid bash -c "env -i bash -c '$endless' {JOBS}-forked & exit" >/dev/null 2>&1 </dev/null &)
for kind in -M100 -Q -S1; do ipcmk $kind >/dev/null 2>&1; done
sleep 0.2; echo planted
"""

LOOK = f"""
grep -rlsa 'planted-[fs]' ~ /workspace /tmp /dev/shm /var /run /etc /usr/local --null \\
  | while IFS= read -r -d '' file; do
      for kind in {FILES} {SHELL} {STATE}; do
        if grep -qsa $kind "$file"; then echo "found $kind in $file"; fi; done; done
find ~ /workspace /tmp /dev/shm /var/tmp -name '{FILES}' 2>/dev/null | sed 's/^/found {FILES} at /'
for f in /proc/[0-9]*/cmdline; do
  tr '\\0' ' ' <$f 2>/dev/null | grep -v grep | grep -o '{JOBS}-[a-z]*' | sed 's/^/found /'; done
ipcs -mqs 2>/dev/null | grep '^0x' | sed 's/^/found ipc /'
echo looked
"""


@contextmanager
def directory_of(place: str) -> Iterator[Path]:
    """A directory that belongs to the runner's user."""
    with tempfile.TemporaryDirectory() as base:
        if place == "user" and os.geteuid() == 0:
            os.chown(base, UID, UID)
        yield Path(base)


def plan(*scripts: str) -> Plan:
    # Encoded: OpenCode itself would refuse a command that names places outside the workspace.
    encoded = (base64.b64encode(script.encode()).decode() for script in scripts)
    commands = (f"echo {script} | base64 -d | bash" for script in encoded)
    calls = [("bash", {"command": command, "description": "x"}) for command in commands]
    return Plan(pieces=["ok"], tools=calls)


def tool_output(told: list[RunEvent]) -> str:
    assert isinstance(told[-1], events.RunFinished), told[-1]
    done = [e for e in told if isinstance(e, events.ToolUpdated) and e.status == "completed"]
    output = done[-1].output or ""
    assert "looked" in output
    return output


@pytest.mark.timeout(150)
@pytest.mark.parametrize("place", WHO)
async def test_a_warm_sandbox_shows_nothing_of_the_one_before(
    place: str, verdicts: Verdicts
) -> None:
    """Neither one that was warm at the same time, nor one that was made afterwards."""
    async with fake_provider() as provider:
        with (
            directory_of(place) as directory,
            STARTERS[place](
                directory,
                RUNNER_WARM_POOL="2",
                OPENAI_API_KEY="k",
                OPENAI_BASE_URL=provider.base_url,
                MODELS="openai/scripted",
            ) as runner,
        ):
            provider.plan = plan(PLANT, LOOK)
            planted = tool_output(await runner.run(f"I am {STATE}", subject="mallory"))
            for kind in (FILES, SHELL, STATE, "opencode.db", f"{JOBS}-nohup", f"{JOBS}-forked"):
                assert kind in planted  # it is there, and would be found
            alive = mentioning(JOBS)
            provider.requests.clear()

            found = ""
            for _ in range(2):
                provider.plan = plan(LOOK)
                told = await runner.run("Hi", subject="alice")
                found += tool_output(told)
                assert text_of(told) == "ok"
            heard = str([request.body for request in provider.requests])

    verdicts.note("Leave files for who gets the next warm sandbox", held=FILES not in found)
    verdicts.note("Leave shell history and start-up files for the next", held=SHELL not in found)
    verdicts.note(
        "Leave OpenCode history, settings, plugins and sign-ins for the next",
        held=STATE not in found and STATE not in heard,
    )
    verdicts.note(
        "Leave background jobs for the next (setsid, nohup, double fork)",
        held=JOBS not in found and not alive,
    )
    verdicts.note(
        "Leave shared memory, queues and semaphores for the next", held="ipc" not in found
    )
    assert "found" not in found
    assert STATE not in heard
    assert alive == []
