"""Whoever had a warm sandbox leaves nothing behind for who gets the next one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from runner.contract import events
from tests.support.fake_provider import Plan, fake_provider
from tests.support.processes import mentioning
from tests.support.runner import run_runner, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from runner.contract.events import RunEvent

MARK = "planted-4d1c"

PLANT = f"""
cd /; echo {MARK} | tee ~/file ~/.bash_history ~/.profile ~/.bashrc ~/.gitconfig \
  /workspace/file /workspace/.envrc /tmp/file /dev/shm/file /var/tmp/file /run/file \
  /usr/local/bin/ls /etc/profile.d/x.sh >/dev/null 2>&1
mkdir -p ~/.config/opencode/plugin ~/.config/opencode/agent /workspace/.opencode/plugin ~/.opencode
echo 'require("fs").writeFileSync("/tmp/{MARK}","")' | tee ~/.config/opencode/plugin/x.js \
  /workspace/.opencode/plugin/x.js ~/.opencode/x.js >/dev/null
echo '{{"username":"{MARK}"}}' \\
  | tee ~/.config/opencode/opencode.json /workspace/opencode.json >/dev/null
echo '# {MARK}' | tee ~/.config/opencode/AGENTS.md /workspace/AGENTS.md >/dev/null
setsid bash -c 'while :; do sleep 1; done' {MARK} >/dev/null 2>&1 </dev/null &
echo planted
"""

LOOK = f"""
grep -rlsa {MARK} ~ /workspace /tmp /dev/shm /var /run /etc /usr/local 2>/dev/null
for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f | grep -v grep | grep {MARK}; done
echo looked
"""


def plan(*scripts: str) -> Plan:
    # Encoded: OpenCode itself would refuse a command that names places outside the workspace.
    encoded = (base64.b64encode(script.encode()).decode() for script in scripts)
    commands = (f"echo {script} | base64 -d | bash" for script in encoded)
    calls = [("bash", {"command": command, "description": "x"}) for command in commands]
    return Plan(pieces=["ok"], tools=calls)


def tool_output(told: list[RunEvent]) -> str:
    assert isinstance(told[-1], events.RunFinished), told[-1]
    done = [e for e in told if isinstance(e, events.ToolUpdated) and e.status == "completed"]
    return done[-1].output or ""


@pytest.mark.timeout(120)
async def test_a_warm_sandbox_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    """Files, shell history, OpenCode's settings and plugins, background jobs, its history."""
    async with fake_provider() as provider:
        with run_runner(
            tmp_path,
            RUNNER_WARM_POOL="2",
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=provider.base_url,
            MODELS="openai/scripted",
        ) as runner:
            provider.plan = plan(PLANT, LOOK)
            planted = await runner.run(f"My name is {MARK}", subject="mallory")
            assert len(tool_output(planted).splitlines()) > 10  # it does find what there is
            assert mentioning(MARK) == []
            provider.requests.clear()

            for _ in range(2):
                provider.plan = plan(LOOK)
                told = await runner.run("Hi", subject="alice")
                assert tool_output(told).strip() == "looked"
                assert text_of(told) == "ok"
            assert MARK not in str([request.body for request in provider.requests])
