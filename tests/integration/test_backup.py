"""The drill: a backup under load, everything destroyed, restored, and put to use."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from stack.backup.create import create
from stack.backup.failures import BackupFailed, KeysMissing
from stack.backup.restore import restore, verify
from stack.backup.settings import BackupSettings
from tests.support import scripted_agent
from tests.support.fake_provider import Plan, fake_provider
from tests.support.gateway import FERNET_KEY, gateway_settings, run_gateway
from tests.support.pocketbase import PASSWORD, User, run_pocketbase
from tests.support.runner import TOKEN, run_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.fake_provider import FakeProvider
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase

pytestmark = pytest.mark.timeout(150)

ALICES_KEY, BOBS_KEY = "sk-alice-51c0de", "sk-bob-7e1e9a"
NDJSON = "application/x-ndjson"


@dataclass(frozen=True, kw_only=True)
class System:
    """All three parts, on one folder of data."""

    pocketbase: RunningPocketBase
    gateway: RunningGateway
    provider: FakeProvider

    async def answer(self, user: User, prompt: str) -> tuple[str, str]:
        """Return the id of a finished run and its events, as they came."""
        async with self.gateway.stream(user, prompt=prompt, accept=NDJSON) as response:
            told = await response.text()
            assert response.status == 200, told
            return response.headers["X-Run-ID"], told

    async def get(self, user: User, path: str) -> Any:
        async with self.gateway.request("GET", path, user=user) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def log(self, user: User, run_id: str) -> str:
        """Return what is kept of a run's events."""
        path = f"/opencode/runs/{run_id}/events"
        headers = {"Accept": NDJSON}
        async with self.gateway.request("GET", path, user=user, headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.text()


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[System]:
    """Run the system on `home/data`, with a light agent in OpenCode's place."""
    data_dir = home / "data"
    data_dir.mkdir(exist_ok=True)
    async with fake_provider() as provider:
        provider.plan = Plan(pieces=["Hello", " world"])
        with (
            run_pocketbase(data_dir) as pocketbase,
            run_runner(
                home,
                OPENAI_BASE_URL=provider.base_url,
                OPENCODE_BIN=str(scripted_agent.install(home)),
                RUNNER_SANDBOX="process",
                GATEWAY_RUNS_PER_USER="4",
            ) as runner,
        ):
            settings = gateway_settings(
                pocketbase,
                runner_url=runner.url,
                runner_token=SecretStr(TOKEN),
                data_dir=data_dir,
                gateway_reconcile_s=0.5,
                gateway_runner_patience_s=20.0,
            )
            async with run_gateway(settings) as gateway:
                yield System(pocketbase=pocketbase, gateway=gateway, provider=provider)


@asynccontextmanager
async def load(system: System, user: User) -> AsyncIterator[Callable[[], int]]:
    """Have records written and prompts answered while the block runs; yield how many so far."""
    enough = asyncio.Event()
    done = 0

    async def write() -> None:
        nonlocal done
        while not enough.is_set():
            await asyncio.to_thread(system.pocketbase.change, user, name=secrets.token_hex(100))
            done += 1

    async def ask() -> None:
        nonlocal done
        while not enough.is_set():
            await system.answer(user, f"load {secrets.token_hex(8)}")
            done += 1

    busy = [asyncio.create_task(work()) for work in (write, write, ask, ask)]
    try:
        yield lambda: done
    finally:
        enough.set()
        await asyncio.gather(*busy)


async def everything_has_ended(system: System, user: User) -> list[dict[str, Any]]:
    """Return a user's runs once each has an end."""
    async with asyncio.timeout(30):
        while True:
            items = (await system.get(user, "/opencode/runs?per_page=100"))["items"]
            if all(item["ended_at"] for item in items):
                return list(items)
            await asyncio.sleep(0.1)


def what_is_kept(run: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same whether the runner tells it or the record."""
    return {name: run[name] for name in ("id", "status", "prompt", "model")}


async def test_after_a_lost_volume_everything_is_there_again(tmp_path: Path) -> None:
    """People sign in, their keys work, history and events are there; with other keys it refuses."""
    places = BackupSettings(data_dir=tmp_path / "data").places
    async with running(tmp_path) as system:
        new_user = system.pocketbase.new_user
        alice, bob, busy = [await asyncio.to_thread(new_user, name) for name in "abc"]
        await asyncio.to_thread(system.pocketbase.change, bob, api_key=BOBS_KEY)  # by an admin
        for user in (alice, busy):
            async with system.gateway.request(
                "PUT", "/opencode/key", user=user, json={"api_key": ALICES_KEY}
            ) as response:
                assert response.status < 300
        run_id, told = await system.answer(alice, "before the backup")
        [before] = await everything_has_ended(system, alice)
        environ = {
            "KEY_ENCRYPTION_KEYS": FERNET_KEY,
            "KEY_SEALING_KEY": system.pocketbase.sealing_key,
        }
        async with load(system, busy) as done:
            await system.answer(alice, "amidst the load")
            before_it, tries = done(), 0
            archive = await asyncio.to_thread(create, places, environ, to=tmp_path / "0")
            while done() < before_it + 30:  # on a quick machine one backup is over in a moment
                tries += 1
                folder = tmp_path / str(tries)
                archive = await asyncio.to_thread(create, places, environ, to=folder)
        with pytest.raises(BackupFailed, match="is running"):
            restore(archive, places, environ, force=True)

    shutil.rmtree(tmp_path / "data")
    manifest, missing = verify(archive, environ)
    assert (sum(use.users for use in manifest.keys), missing) == (3, [])
    with pytest.raises(KeysMissing, match="2 users"):
        restore(archive, places, environ | {"KEY_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    assert not places.pocketbase.exists()

    restore(archive, places, environ)
    (tmp_path / "data" / "sealing.key").write_text(environ["KEY_SEALING_KEY"])

    async with running(tmp_path) as system:
        for user, key in ((alice, ALICES_KEY), (bob, BOBS_KEY)):
            token = await asyncio.to_thread(
                system.pocketbase.sign_in, "users", user.email, PASSWORD
            )
            again = User(id=user.id, email=user.email, name=user.name, token=token)
            await system.answer(again, "after the restore")
            assert system.provider.requests[-1].authorization == f"Bearer {key}"
            runs = await everything_has_ended(system, again)
            assert runs[0]["prompt"] == "after the restore"
            if user is alice:
                assert what_is_kept(runs[-1]) == what_is_kept(before)
                assert await system.log(again, run_id) == told
        # Those that were on when it was made have a record, and an end.
        assert await everything_has_ended(system, busy)
