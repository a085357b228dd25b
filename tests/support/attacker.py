"""The tests' end of the sandbox driver: sends a script, gets what it brought about."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.support.compose import built_stack, taken_down
from tests.support.ordinary_user import REPOSITORY, UID, Command, as_ordinary_user
from tests.support.prelude import PRELUDE
from tests.support.sandbox_driver import CANARY
from tests.support.spawner import run_spawner

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack brought about, as the driver saw it."""

    out: str
    err: str
    verdict: str | None
    neighbour: str
    left: bool
    precious: str
    outside: list[str]
    strays: list[int]

    @property
    def lines(self) -> list[str]:
        """Return what the script printed."""
        return self.out.splitlines()


@dataclass(slots=True)
class Attacker:
    """Somebody with a shell in a sandbox.

    Attributes:
        who: Whose runner it is: `root` or `user`; `container`: the one in the stack's container;
            `docker`: root's, with containers as sandboxes.
        places: What there is on the host to aim at.
    """

    who: str
    places: dict[str, Any]
    stdin: IO[str]
    stdout: IO[str]
    enforced: dict[str, str] = field(default_factory=dict)

    def run(self, script: str, **limits: float) -> Outcome:
        """Run bash *script* in a sandbox of its own; `{base}` … stand for `places`."""
        mark = secrets.token_hex(8)
        for name, value in {**self.places, "mark": mark}.items():
            script = script.replace("{" + name + "}", str(value))
        request = {"script": f": {mark}\n{script}", "limits": limits, "mark": mark}
        self.stdin.write(json.dumps(request) + "\n")
        self.stdin.flush()
        line = self.stdout.readline()
        assert line, "the runner died of the attack"
        outcome = Outcome(**json.loads(line))
        self._assert_unharmed(outcome)
        return outcome

    def python(self, script: str, **limits: float) -> Outcome:
        """Run *script* with Python, after `PRELUDE`."""
        return self.run(f"exec python3 - <<'END'\n{PRELUDE}\n{script}\nEND\n", **limits)

    def _assert_unharmed(self, outcome: Outcome) -> None:
        """What holds after every attack, whatever it was."""
        assert CANARY not in outcome.out + outcome.err
        assert outcome.neighbour == "still here"
        assert outcome.precious == CANARY
        assert outcome.outside == ["precious", "socket"]
        assert not outcome.left, "the run's directory is still there"
        assert outcome.strays == [], "something outlived the sandbox"


@contextmanager
def attacker(who: str) -> Iterator[Attacker]:
    """Yield an attacker in the sandboxes of a runner that is *who*."""
    environment = {"PATH": os.environ["PATH"], "CANARY": CANARY, "LANG": "C.UTF-8"}
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="opencode-attacks-"))
        stack.callback(shutil.rmtree, base)
        base.chmod(0o711)
        argv = [sys.executable, "-m", "tests.support.sandbox_driver", str(base)]
        command = Command(argv)
        if who == "user":
            if os.geteuid() == 0:
                os.chown(base, UID, UID)
            command = stack.enter_context(as_ordinary_user(argv))
        elif who == "container":
            project = stack.enter_context(taken_down(built_stack().another("attacks")))
            program = ["-m", "tests.support.in_container", "driver"]
            command = Command(project.runner_program(*program, CANARY=CANARY))
            environment |= project.environ
        elif who == "docker":
            argv.append(str(stack.enter_context(run_spawner(base)).socket))
        process = stack.enter_context(
            subprocess.Popen(
                command.argv,
                pass_fds=command.fds,
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert process.stdin
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line, "no sandbox can be made here"
            places = json.loads(line)
            enforced = places.pop("enforced")
            yield Attacker(who, places, process.stdin, process.stdout, enforced)
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
