"""The stack of containers, as an operator handles it, and a user who calls it."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import unused_port

from stack.generate import CONTAINER_USER, for_containers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
FILES = ("compose.yaml", "compose.override.yaml", "tests/compose/compose.test.yaml")
OPERATOR_KEY = "sk-operator-5c0ffee5"
SERVICES = ("pocketbase", "gateway", "runner")
TERMINAL = frozenset({"run.finished", "run.failed", "run.cancelled"})
_PATIENCE_S = 90.0
_POLL_S = 0.2
_TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class ComposeStack:
    """A project of containers.

    Attributes:
        program: `docker compose` of either version.
        environ: Where the engine is, and what the operator has set.
    """

    program: Sequence[str]
    environ: Mapping[str, str]
    files: Sequence[str] = FILES

    @property
    def project(self) -> str:
        return self.environ["COMPOSE_PROJECT_NAME"]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.environ['GATEWAY_PORT']}"

    def compose(self, *arguments: str) -> str:
        """Run compose; return what it prints."""
        return self._run(self._command(*arguments))

    def docker(self, *arguments: str) -> str:
        """Run docker; return what it prints."""
        return self._run(["docker", *arguments])

    def container(self, service: str) -> str:
        """Return the id of the service's container."""
        return self.compose("ps", "-q", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of the service's container."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", self.container(service)))
        return found[0]

    def inside(self, service: str, script: str, *, user: str = "10001") -> str:
        """Run a shell script in the service's container; return its stdout and stderr."""
        command = ["docker", "exec", "-u", user, self.container(service), "bash", "-c", script]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def kill_main_process(self, service: str) -> None:
        """Kill what the container is there for; its first process is Docker's init."""
        self.inside(service, "kill -KILL $(cat /proc/1/task/1/children)")

    def restarts(self, service: str) -> int:
        """Return how often the engine started the service's container again."""
        return int(self.inspect(service)["RestartCount"])

    def until_healthy(self) -> None:
        """Wait until the gateway says that the main job can be done."""
        eventually(lambda: health(self.origin).get("status") == "ok", "the stack is not healthy")

    def left(self) -> list[str]:
        """Return containers, volumes and networks of the project."""
        label = f"label=com.docker.compose.project={self.project}"
        found = self.docker("ps", "-aq", "--filter", label)
        found += self.docker("volume", "ls", "-q", "--filter", label)
        found += self.docker("network", "ls", "-q", "--filter", label)
        return found.split()

    def runner_program(self, *arguments: str, **environment: str) -> list[str]:
        """Return the command that runs Python in a runner's container of its own, with our tests.

        It has all that the stack's own has: rights, filter, volumes, secrets.
        """
        variables = {"TMPDIR": "/data", **environment}
        return [
            *self._command("run", "--rm", "-T", "--no-deps", "--entrypoint", "python"),
            *("--volume", f"{ROOT}/tests:/app/tests:ro"),
            *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
            *("runner", *arguments),
        ]

    def secret(self, name: str) -> str:
        """Return one of the secrets that the operator has made."""
        return Path(self.environ["SECRETS_DIR"], name).read_text(encoding="utf-8").strip()

    def another(self, name: str, *, program: Sequence[str] | None = None) -> ComposeStack:
        """Return a project of its own beside this one, from the same images."""
        own = {
            "COMPOSE_PROJECT_NAME": f"{self.project}-{name}",
            "GATEWAY_PORT": str(unused_port()),
        }
        return replace(self, program=program or self.program, environ={**self.environ, **own})

    def _command(self, *arguments: str) -> list[str]:
        chosen = [word for file in self.files for word in ("-f", file)]
        return [*self.program, *chosen, *arguments]

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        return done.stdout


@cache
def built_stack() -> ComposeStack:
    """Return the stack with its images built; skip the test where there can be none."""
    if reason := os.environ.get("NO_ENGINE"):
        pytest.skip(reason)
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        pytest.skip("no Docker engine: `make test-compose` finds or starts one")
    stack = ComposeStack(
        program=("docker", "compose"),
        environ={
            **os.environ,
            "IMAGE_PREFIX": "opencode-multiuser-test",
            "APP_VERSION": "test",
            "COMPOSE_PROJECT_NAME": f"ocm-test-{os.getpid()}",
            "GATEWAY_PORT": str(unused_port()),
            **_folders(),
            "GATEWAY_RECONCILE_S": "2",
            "RUNNER_WARM_POOL": "0",
        },
    )
    stack.compose("build", "--quiet")
    return stack


def _folders() -> dict[str, str]:
    """Make what `make secrets` makes, with an operator's key, and a folder for backups."""
    base = Path(tempfile.mkdtemp(prefix="opencode-compose-"))
    atexit.register(shutil.rmtree, base)
    folders = {"SECRETS_DIR": base / "secrets", "BACKUP_DIR": base / "backups"}
    for folder in folders.values():
        folder.mkdir()
    key = folders["SECRETS_DIR"] / "openai_api_key"
    key.write_text(f"{OPERATOR_KEY}\n", encoding="utf-8")
    key.chmod(0o444)
    for_containers(folders["SECRETS_DIR"])
    if os.geteuid() == 0:
        os.chown(folders["BACKUP_DIR"], CONTAINER_USER, CONTAINER_USER)
    else:
        folders["BACKUP_DIR"].chmod(0o777)
    return {name: str(folder) for name, folder in folders.items()}


@contextmanager
def taken_down(stack: ComposeStack) -> Iterator[ComposeStack]:
    """Remove whatever there is of *stack* after the block."""
    try:
        yield stack
    finally:
        # With every profile: else what only these have would stay.
        end = ("down", "--volumes", "--remove-orphans", "--timeout", "2")
        stack.compose("--profile", "edge", "--profile", "tools", *end)


def eventually(holds: Any, otherwise: str) -> None:
    """Wait until *holds* returns something true."""
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(_POLL_S)


def health(origin: str) -> dict[str, Any]:
    """Return what `/opencode/health` says; nothing while there is no answer."""
    try:
        with urllib.request.urlopen(f"{origin}/opencode/health", timeout=10) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except (OSError, ValueError):
        return {}


@dataclass(kw_only=True)
class Caller:
    """Somebody with a token."""

    origin: str
    token: str
    seen: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON of an answer that is no error."""
        with self._open(method, path, body) as response:
            raw = response.read()
        return json.loads(raw) if raw else None

    def text(self, prompt: str) -> str:
        """Return the answer to *prompt* as text."""
        with self._open("POST", "/opencode/stream", {"prompt": prompt}) as response:
            answer: bytes = response.read()
        return answer.decode()

    def start(self, prompt: str) -> str:
        """Start a run that outlives the connection; return its id."""
        run_id: str = self.call("POST", "/opencode/runs", {"prompt": prompt})["id"]
        self.seen[run_id] = []
        return run_id

    def read(self, run_id: str, *, until: str = "") -> list[dict[str, Any]]:
        """Read on to the first event of the type *until*, or to the end; return all there were.

        Comes back with the number of the last event, as a browser does, when the connection breaks.
        """
        events = self.seen[run_id]
        eventually(lambda: self._read_on(run_id, events, until), f"{run_id} goes on and on")
        return events

    def _read_on(self, run_id: str, events: list[dict[str, Any]], until: str) -> bool:
        try:
            for event in self._events(run_id, events[-1]["seq"] if events else -1):
                if "seq" not in event:
                    return False  # the gateway's own word: the runner is away
                events.append(event)
                if event["type"] == until or event["type"] in TERMINAL:
                    return True
        except (OSError, ValueError):
            pass
        return False

    def _events(self, run_id: str, after: int) -> Iterator[dict[str, Any]]:
        path = f"/opencode/runs/{run_id}/events" + (f"?after={after}" if after >= 0 else "")
        with self._open("GET", path, accept="application/x-ndjson") as response:
            for line in response:
                if line.strip():
                    yield json.loads(line)

    def _open(
        self, method: str, path: str, body: dict[str, Any] | None = None, accept: str = "*/*"
    ) -> Any:
        request = urllib.request.Request(
            f"{self.origin}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Content-Type": "application/json",
                "Accept": accept,
                **({"Authorization": self.token} if self.token else {}),
            },
        )
        return urllib.request.urlopen(request, timeout=_PATIENCE_S)


def new_user(stack: ComposeStack) -> Caller:
    """Make a user as the first admin does, and sign in as that user."""
    admin = Caller(origin=stack.origin, token="")
    password = stack.secret("pb_superuser_password")
    admin.token = _token(admin, "_superusers", "admin@example.com", password)
    email, password = f"{secrets.token_hex(6)}@example.com", secrets.token_hex(8)
    admin.call(
        "POST",
        "/api/collections/users/records",
        {"email": email, "password": password, "passwordConfirm": password, "name": "Anna"},
    )
    user = Caller(origin=stack.origin, token="")
    user.token = _token(user, "users", email, password)
    return user


def _token(caller: Caller, collection: str, email: str, password: str) -> str:
    answer = caller.call(
        "POST",
        f"/api/collections/{collection}/auth-with-password",
        {"identity": email, "password": password},
    )
    return str(answer["token"])


def text_of(events: list[dict[str, Any]]) -> str:
    """Return the agent's text."""
    return "".join(event["text"] for event in events if event["type"] == "text.delta")
