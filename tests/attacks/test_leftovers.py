"""What tries to outlive its run, or to make its removal dangerous."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.attacker import Attacker

# `Attacker` itself asserts that neither process nor directory is left, nor harm done outside.


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sleep 1000 & bash -c 'sleep 1000; :' {mark} &", id="background"),
        pytest.param(
            "trap '' TERM HUP INT; (setsid bash -c 'trap \"\" TERM HUP; (while :; do sleep 1;"
            " done) & disown; while :; do sleep 1; done' {mark} >/dev/null 2>&1 </dev/null &)",
            id="double-fork-and-setsid",
        ),
        pytest.param("exec bash -c 'trap \"\" TERM; exec 1>&- 2>&-; sleep 3; :' {mark}", id="deaf"),
    ],
)
def test_no_process_outlives_the_run(attacker: Attacker, script: str) -> None:
    """However it was started, it ends with the sandbox."""
    attacker.run(script.replace("sleep 1000 &", "sleep 1000 >/dev/null 2>&1 &"))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            "cd /workspace; ln -s {base}/outside out; ln -s / root; ln -s .. up; ln -s . self;"
            " ln -s {base}/outside/precious file; cd ~; ln -s {base}/neighbour n",
            id="links-out",
        ),
        pytest.param(
            "cd /workspace; mkdir -p a/b/c; touch a/b/c/f; chmod 000 a/b/c a/b a;"
            " mkdir w; touch w/f; chmod 500 w; mkdir x; touch x/f; chmod 200 x; chmod 000 .",
            id="modes",
        ),
        pytest.param(
            "cd /workspace; mkdir $'new\\nline' $'\\xff\\xfe' '-rf' ' ' '*'; touch -- $'-\\n'"
            " $'a\\x01b'; mkfifo fifo",
            id="names",
        ),
        pytest.param(
            'cd ~; python3 -c \'import os\nfor _ in range(3_000): os.mkdir("d"); os.chdir("d")\'',
            id="depth",
        ),
        pytest.param(
            "cd ~; for i in $(seq 100); do mkdir $i; (cd $i; touch $(seq 20)); done",
            id="many",
        ),
    ],
)
def test_directories_that_fight_back_are_removed(attacker: Attacker, script: str) -> None:
    """Removal follows no link, fears no mode, name or depth."""
    outcome = attacker.run(script, memory_bytes=1 << 30, disk_bytes=1 << 30)

    assert outcome.verdict is None
