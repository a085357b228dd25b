"""A real PocketBase on a free port with the project's own migrations and hooks."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SUPERUSER_EMAIL = "root@example.com"
SUPERUSER_PASSWORD = "correct-horse-battery"
PASSWORD = "a-long-password"
_START_S = 20.0


@dataclass(frozen=True, kw_only=True)
class User:
    """A user nobody else has."""

    id: str
    email: str
    name: str
    token: str


@dataclass(frozen=True, kw_only=True)
class RunningPocketBase:
    """A server that is up, with the few calls that tests make on it (they block)."""

    url: str
    data_dir: Path
    sealing_key_file: Path
    kept: list[str] = field(default_factory=list)

    @property
    def sealing_key(self) -> str:
        return self.sealing_key_file.read_text(encoding="utf-8")

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str = ""
    ) -> tuple[int, Any]:
        """Return status and JSON of the answer."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Content-Type": "application/json",
                **({"Authorization": token} if token else {}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                status, raw = response.status, response.read()
        except urllib.error.HTTPError as exc:
            with exc:
                status, raw = exc.code, exc.read()
        return status, json.loads(raw) if raw else None

    def must(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str = ""
    ) -> Any:
        """Return the JSON of an answer that is no error."""
        status, answer = self.call(method, path, body, token=token)
        assert status < 300, (status, answer)
        return answer

    def superuser(self) -> str:
        """Return a superuser's token; signing in costs a bcrypt, so it is kept."""
        if not self.kept or self.call("GET", "/api/settings", token=self.kept[0])[0] != 200:
            self.kept[:] = [self.sign_in("_superusers", SUPERUSER_EMAIL, SUPERUSER_PASSWORD)]
        return self.kept[0]

    def sign_in(self, collection: str, email: str, password: str = PASSWORD) -> str:
        path = f"/api/collections/{collection}/auth-with-password"
        return str(self.must("POST", path, {"identity": email, "password": password})["token"])

    def new_user(self, name: str = "Älice Ünger", **fields: Any) -> User:
        """Create a user and sign in."""
        email = f"user-{secrets.token_hex(6)}@example.com"
        body = {
            "email": email,
            "name": name,
            "password": PASSWORD,
            "passwordConfirm": PASSWORD,
            **fields,
        }
        record = self.must("POST", "/api/collections/users/records", body, token=self.superuser())
        token = self.sign_in("users", email)
        return User(id=record["id"], email=email, name=name, token=token)

    def change(self, user: User, **fields: Any) -> None:
        """Change a user's record as an admin would."""
        path = f"/api/collections/users/records/{user.id}"
        self.must("PATCH", path, fields, token=self.superuser())

    def stored_key(self, user: User) -> str:
        """Return what is stored as the user's API key."""
        path = f"/api/collections/users/records/{user.id}?fields=api_key"
        return str(self.must("GET", path, token=self.superuser())["api_key"])


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pocketbase_binary() -> str:
    beside = Path(sys.executable).parent / "pocketbase"
    found = str(beside) if beside.exists() else shutil.which("pocketbase")
    assert found, "tests use a real PocketBase: install the development requirements"
    return found


def directories(data_dir: Path, migrations: Path = ROOT / "pb_migrations") -> list[str]:
    """Return the options that say where everything is; nothing is written beside the data."""
    return [
        f"--dir={data_dir}",
        f"--migrationsDir={migrations}",
        f"--hooksDir={ROOT / 'pb_hooks'}",
        f"--publicDir={ROOT / 'pb_public'}",
        "--automigrate=false",
        "--hooksWatch=false",
    ]


@contextmanager
def run_pocketbase(
    directory: Path, *, port: int | None = None, sealing: bool = True
) -> Iterator[RunningPocketBase]:
    """Run PocketBase while the block runs; a second time in *directory* it goes on there."""
    data_dir, key_file = directory / "pb_data", directory / "sealing.key"
    if not key_file.exists():
        key_file.write_text(secrets.token_hex(16), encoding="utf-8")
    options = directories(data_dir)
    subprocess.run(
        [pocketbase_binary(), "superuser", "upsert", SUPERUSER_EMAIL, SUPERUSER_PASSWORD, *options],
        check=True,
        capture_output=True,
        timeout=60,
    )
    address = f"127.0.0.1:{port or free_port()}"
    process = subprocess.Popen(
        [pocketbase_binary(), "serve", f"--http={address}", *options],
        stdout=subprocess.DEVNULL,
        env={"KEY_SEALING_KEY_FILE": str(key_file)} if sealing else {},
    )
    server = RunningPocketBase(
        url=f"http://{address}", data_dir=data_dir, sealing_key_file=key_file
    )
    try:
        _wait_until_healthy(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _wait_until_healthy(server: RunningPocketBase, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "PocketBase ended while starting"
        try:
            urllib.request.urlopen(f"{server.url}/api/health", timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"PocketBase was not healthy after {_START_S} s")
