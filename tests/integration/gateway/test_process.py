"""The real process, `python -m gateway`: what it says, how it ends, what it never tells."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession

from tests.support import fake_runner
from tests.support.fake_runner import STARTED, text
from tests.support.gateway import FERNET_KEY
from tests.support.gateway_process import environment, started, until_up
from tests.support.pocketbase import SUPERUSER_PASSWORD, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner, Stage
    from tests.support.pocketbase import RunningPocketBase, User

END_S = 10.0


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


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_what_is_wrong_at_the_start_is_one_line(
    pocketbase: RunningPocketBase, tmp_path: Path, workers: str
) -> None:
    """A taken port, a missing or unusable setting, a typo: one line that says what to mend."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another gateway's workers
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = environment(pocketbase, "http://127.0.0.1:1", port) | {"GATEWAY_WORKERS": workers}

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
