"""The real process, `python -m gateway`: what it says, how it ends, what it never tells."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import ClientSession

from tests.support import fake_runner
from tests.support.fake_runner import STARTED, text
from tests.support.gateway import FERNET_KEY
from tests.support.pocketbase import ROOT, SUPERUSER_EMAIL, SUPERUSER_PASSWORD, free_port

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner, Stage
    from tests.support.pocketbase import RunningPocketBase, User

END_S = 10.0


def environment(pocketbase: RunningPocketBase, runner_url: str, port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "GATEWAY_PORT": str(port),
        "DATA_DIR": str(pocketbase.data_dir.parent / "gateway" / str(port)),
        "POCKETBASE_URL": pocketbase.url,
        "RUNNER_URL": runner_url,
        "RUNNER_TOKEN": fake_runner.TOKEN,
        "PB_SUPERUSER_EMAIL": SUPERUSER_EMAIL,
        "PB_SUPERUSER_PASSWORD": SUPERUSER_PASSWORD,
        "KEY_ENCRYPTION_KEYS": FERNET_KEY,
        "KEY_SEALING_KEY_FILE": str(pocketbase.sealing_key_file),
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
    }


@asynccontextmanager
async def started(env: dict[str, str], log: Path) -> AsyncIterator[Process]:
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", cwd=ROOT, env=env, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_up(url: str, process: Process) -> None:
    async with ClientSession() as http, asyncio.timeout(30):
        while process.returncode is None:
            try:
                async with http.get(f"{url}/test") as response:
                    assert response.status == 200
                    return
            except OSError:
                await asyncio.sleep(0.05)
    raise AssertionError("the gateway ended while starting")


async def endless(stage: Stage) -> None:
    await stage.send(STARTED, text("Hallo"))
    await asyncio.Event().wait()


async def test_the_process_ends_runs_of_callers_who_leave_and_itself_when_told(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User, tmp_path: Path
) -> None:
    """Leaving reaches the runner; SIGTERM ends the process in time, streams or not."""
    runner.script, port = endless, free_port()
    url, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    key, prompt = "sk-canary-000000000001", "canary-prompt"
    stream, headers = f"{url}/opencode/stream?prompt={prompt}", {"Authorization": alice.token}

    async with (
        started(environment(pocketbase, runner.url, port), log) as process,
        ClientSession(headers=headers) as http,
    ):
        await until_up(url, process)
        async with http.put(f"{url}/opencode/key", json={"api_key": key}) as response:
            assert response.status == 200
        async with http.get(stream) as response:
            assert await response.content.readany() == b"Hallo"
            response.close()
        async with asyncio.timeout(END_S):
            await runner.left.wait()
        runner.left.clear()

        async with http.get(f"{url}/{prompt}" + "x" * (2 << 20)) as response:
            assert response.status == 400  # a line longer than any prompt
        async with http.get(stream) as response:
            assert await response.content.readany() == b"Hallo"
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(END_S):
                assert await process.wait() == 0
                await runner.left.wait()

    told = log.read_text(encoding="utf-8")
    assert told.count('"run_requested"') == 2
    assert told.count('"outcome": "disconnected"') == 2
    assert f'"user_id": "{alice.id}"' in told
    secrets = (key, prompt, alice.token, fake_runner.TOKEN, SUPERUSER_PASSWORD, FERNET_KEY)
    for secret in (*secrets, pocketbase.sealing_key, alice.email):
        assert secret not in told


async def ends_with_one_line(env: dict[str, str], log: Path) -> str:
    async with started(env, log) as process, asyncio.timeout(30):
        assert await process.wait() == 2
    [line] = log.read_text(encoding="utf-8").splitlines()
    return line


async def test_what_is_wrong_at_the_start_is_one_line(
    pocketbase: RunningPocketBase, tmp_path: Path
) -> None:
    """A taken port, a missing or unusable setting, a typo: one line that says what to mend."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = environment(pocketbase, "http://127.0.0.1:1", port)

        assert await ends_with_one_line(env, tmp_path / "1") == (
            f"gateway: 127.0.0.1:{port} is taken; end what listens there or set GATEWAY_PORT"
        )
    bad_keys = await ends_with_one_line({**env, "KEY_ENCRYPTION_KEYS": "abc"}, tmp_path / "2")
    typo = await ends_with_one_line({**env, "GATEWAY_PROT": "1"}, tmp_path / "3")
    missing = await ends_with_one_line({**env, "RUNNER_TOKEN": ""}, tmp_path / "4")
    nowhere = await ends_with_one_line({**env, "DATA_DIR": "/dev/null"}, tmp_path / "5")

    assert "KEY_ENCRYPTION_KEYS" in bad_keys
    assert "GATEWAY_PROT" in typo
    assert "RUNNER_TOKEN" in missing
    assert nowhere.startswith("gateway: DATA_DIR: /dev/null/spool can't be written")
