"""One run that is nothing but attacks, beside another user's run, and what came of it.

The real path: the real runner, the real OpenCode; a scripted provider gives the orders.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import shutil
import signal
import socket
import tempfile
from array import array
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.attacks.registry import RAN
from tests.support.fake_provider import FakeProvider, Plan, Seen, fake_provider
from tests.support.ordinary_user import UID
from tests.support.processes import descendants, eventually, files_with, mentioning
from tests.support.runner import RunningRunner, read_events, run_runner, run_runner_as_user
from tests.support.spawner import run_spawner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.contract.events import RunEvent
    from tests.attacks.registry import Attack
    from tests.support.spawner import RunningSpawner

CANARY = "sk-canary-"
TENANT, NEIGHBOUR = "alice", "bob"
_WITHIN_S = 240
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STRIDE = 256 * _PAGE
_SECRET = "echo SECRET > /workspace/secret || echo SECRET > secret; echo SECRET > ~/secret"
_SUSPICIOUS = ("openai-organization", "x-forwarded-for", "x-api-key", "cookie")


@dataclass(kw_only=True)
class Assault:
    """What came of it.

    Attributes:
        backend: The sandbox backend.
        outputs: Attack → what the tool put out.
        told: The run's events.
        key_found_in: Where a user's API key was found that is not the runner's memory.
        key_in_runner: Whether it was found there: where not even that, the search is worthless.
        keys_of_tenant: Keys that the provider was shown for the attacker's requests.
        outside: What lay in the host's folder afterwards.
        precious: What its file held.
        strays: Daemons that were alive after the run.
        left: Run directories that were there after both runs.
        neighbour_ended: The last event of the neighbour's run.
    """

    backend: str
    outputs: dict[str, str] = field(default_factory=dict)
    told: list[RunEvent] = field(default_factory=list)
    key_found_in: list[str] = field(default_factory=list)
    key_in_runner: bool = False
    outside: list[str] = field(default_factory=list)
    precious: str = ""
    strays: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    neighbour_ended: RunEvent | None = None


def carry_out(attacks: Sequence[Attack], *, backend: str, as_user: bool) -> Assault:
    """Return what came of *attacks* in one run of a runner with *backend*."""
    with ExitStack() as stack:
        base, target = stack.enter_context(_world(as_user=as_user))
        stage = _Stage(base, target, backend, as_user)
        if backend == "docker":
            stage.spawner = stack.enter_context(run_spawner(base / "data" / "sandboxes"))
        return asyncio.run(stage.play(attacks))


@contextmanager
def _world(*, as_user: bool) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a folder for the runner, and what there is on the host to aim at."""
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="opencode-attacks-"))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        base.chmod(0o711)
        (base / "outside").mkdir()
        (base / "outside" / "precious").write_text("precious", encoding="utf-8")
        abstract = base.name
        for name in ("\0" + abstract, str(base / "outside" / "socket")):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(name)
            listening.listen()
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        if as_user and os.geteuid() == 0:
            for path in (base, *base.rglob("*")):
                os.chown(path, UID, UID)
        yield (
            base,
            {
                "outside": str(base / "outside"),
                "data": str(base / "data"),
                "sandboxes": str(base / "data" / "sandboxes"),
                "abstract": abstract,
                "port": str(tcp.getsockname()[1]),
                "mark": secrets.token_hex(8),
            },
        )


class _Stage:
    """Everybody who takes part."""

    def __init__(self, base: Path, target: dict[str, str], backend: str, as_user: bool) -> None:  # noqa: FBT001
        self._base = base
        self._target = target
        self._as_user = as_user
        self._result = Assault(backend=backend)
        self.spawner: RunningSpawner | None = None
        self._keys = {who: CANARY + secrets.token_hex(12) for who in (TENANT, NEIGHBOUR)}
        self._gates = {who: asyncio.Semaphore(0) for who in (TENANT, NEIGHBOUR)}
        self._tools: dict[str, list[tuple[str, dict[str, Any]]]] = {
            NEIGHBOUR: [("bash", {"command": _SECRET, "description": "x"})]
        }

    async def play(self, attacks: Sequence[Attack]) -> Assault:
        """Carry everything out."""
        async with fake_provider() as provider:
            provider.plan = self._plan
            run = run_runner_as_user if self._as_user else run_runner
            with run(
                self._base,
                RUNNER_SANDBOX=self._result.backend,
                RUNNER_SPAWNER_SOCKET=str(self.spawner.socket) if self.spawner else "",
                OPENAI_BASE_URL=provider.base_url,
                MODELS="openai/scripted,openai/other",
                RUNNER_IDLE_TIMEOUT_S=str(_WITHIN_S),
            ) as runner:
                async with asyncio.timeout(_WITHIN_S):
                    await self._play(attacks, runner, provider)
        return self._result

    async def _play(
        self, attacks: Sequence[Attack], runner: RunningRunner, provider: FakeProvider
    ) -> None:
        neighbour = asyncio.create_task(self._run(NEIGHBOUR, runner))
        await eventually(lambda: any(seen.tool_results for seen in provider.requests), within_s=60)
        self._aim_at_neighbour(runner)
        self._tools[TENANT] = [self._aimed(attack) for attack in attacks]
        attacking = asyncio.create_task(self._run(TENANT, runner))
        last = len(attacks)
        await eventually(
            lambda: attacking.done() or any(s.tool_results >= last for s in provider.requests),
            within_s=_WITHIN_S,
        )
        self._read_outputs(attacks, provider)
        await asyncio.to_thread(self._search_for_keys, runner)
        self._open(TENANT)
        self._result.told = await attacking
        self._result.strays = self._end_strays()
        self._open(NEIGHBOUR)
        self._result.neighbour_ended = (await neighbour)[-1]
        self._result.left = [
            path.name for path in runner.sandboxes if path.name.startswith("opencode-")
        ]
        self._look_outside()

    async def _run(self, who: str, runner: RunningRunner) -> list[RunEvent]:
        async with runner.request_run(who, subject=who, key=self._keys[who]) as response:
            assert response.status == 200, await response.text()
            return [event async for event in read_events(response)]

    def _open(self, who: str) -> None:
        for _ in range(8):
            self._gates[who].release()

    def _plan(self, seen: Seen) -> Plan:
        who = next((w for w, key in self._keys.items() if key in seen.authorization), "nobody")
        if "probe" in json.dumps(seen.body.get("input")) and not seen.body.get("tools"):
            arrived = [f"saw-{name}" for name in _SUSPICIOUS if name in seen.headers]
            arrived += [f"saw-{name}" for name in ("Model", "models") if name in seen.body]
            said = [f"paid-by-{who}", f"model-{seen.body.get('model')}", *arrived]
            return Plan(pieces=[" ".join(said)])
        return Plan(tools=self._tools.get(who, []), pieces=["a", "b"], gate=self._gates.get(who))

    def _aim_at_neighbour(self, runner: RunningRunner) -> None:
        """Tell the attacks all about the neighbour that somebody outside could know."""
        (directory,) = runner.sandboxes
        self._target |= {"pid": str(runner.process.pid), "neighbour": str(directory)}
        self._target |= {"neighbour_pid": "1", "neighbour_token": "unknown", "neighbour_door": ""}
        for pid in sorted(self._sandboxed(runner), reverse=True):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/environ").read_bytes().decode()
                given = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
                if "RUN_TOKEN" in given:
                    config = json.loads(given["OPENCODE_CONFIG_CONTENT"])
                    self._target |= {
                        "neighbour_pid": str(pid),
                        "neighbour_token": given["RUN_TOKEN"],
                        "neighbour_door": config["provider"]["openai"]["options"]["baseURL"],
                    }

    def _sandboxed(self, runner: RunningRunner) -> list[int]:
        """Everything that belongs to the runner: what it started, or had started."""
        if self.spawner is None:
            return descendants(runner.process.pid)
        return [self.spawner.process.pid, *self.spawner.processes()]

    def _aimed(self, attack: Attack) -> tuple[str, dict[str, Any]]:
        tool, arguments = attack.tool
        aimed = {}
        for name, value in arguments.items():
            for place, what in self._target.items():
                value = value.replace("{" + place + "}", what)  # noqa: PLW2901
            aimed[name] = value
        if "script" in aimed:
            words = base64.b64encode(aimed["script"].encode()).decode()
            command = f"echo {words} | base64 -d | bash 2>/dev/null; echo; echo {RAN}"
            aimed = {"command": command, "description": attack.id}
        return tool, aimed

    def _read_outputs(self, attacks: Sequence[Attack], provider: FakeProvider) -> None:
        fullest = max(provider.requests, key=lambda seen: seen.tool_results)
        outputs = {
            item["call_id"]: item["output"]
            for item in fullest.body["input"]
            if item.get("type") == "function_call_output"
        }
        for number, attack in enumerate(attacks):
            if (output := outputs.get(f"call_{number}")) is not None:
                text = output if isinstance(output, str) else json.dumps(output)
                self._result.outputs[attack.id] = text

    def _search_for_keys(self, runner: RunningRunner) -> None:
        """Look for users' keys while both runs are alive."""
        found = self._result.key_found_in
        for who, key in self._keys.items():
            found += [str(path) for path in files_with(key, self._base)]
            found += [f"command line or environment of {pid}" for pid in mentioning(key)]
            found += [f"{who}'s key in a tool's output"] * (key in str(self._result.outputs))
            for pid in (runner.process.pid, *self._sandboxed(runner)):
                if _in_memory(pid, key.encode()):
                    if pid == runner.process.pid:
                        self._result.key_in_runner = True
                    else:
                        found.append(f"memory of {Path(f'/proc/{pid}/comm').read_text().strip()}")

    def _end_strays(self) -> list[str]:
        """Return the daemons that outlived the run, and end them."""
        mark = self._target["mark"]
        strays = []
        for pid in mentioning(mark):
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
                strays += [line.partition(mark)[2].strip("-\0")]
                os.kill(pid, signal.SIGKILL)
        return sorted(strays)

    def _look_outside(self) -> None:
        outside = self._base / "outside"
        self._result.outside = sorted(path.name for path in outside.iterdir())
        self._result.precious = (outside / "precious").read_text(encoding="utf-8")


def _in_memory(pid: int, wanted: bytes) -> bool:
    """Whether *wanted* is in the writable memory of *pid*, as far as it can be read."""
    with suppress(OSError):
        process = Path(f"/proc/{pid}")
        maps = (process / "maps").read_text(encoding="utf-8", errors="replace")
        with (
            (process / "mem").open("rb", buffering=0) as memory,
            (process / "pagemap").open("rb", buffering=0) as pagemap,
        ):
            for line in maps.splitlines():
                where, rights, *_ = line.split()
                first, last = (int(number, 16) for number in where.split("-"))
                if "rw" in rights and _in_area(memory, pagemap, range(first, last), wanted):
                    return True
    return False


def _in_area(memory: IO[bytes], pagemap: IO[bytes], area: range, wanted: bytes) -> bool:
    """Read the pages that are there only: OpenCode reserves far more than it uses."""
    for start in range(area.start, area.stop, _STRIDE):
        pages = min(_STRIDE, area.stop - start) // _PAGE
        pagemap.seek(start // _PAGE * 8)
        entries = array("Q", pagemap.read(pages * 8))
        if any(entry >> 62 for entry in entries):  # present, or swapped out
            memory.seek(start)
            with suppress(OSError):
                if wanted in memory.read(pages * _PAGE):
                    return True
    return False
