"""The real `python -m runner`, as a process of its own."""

from __future__ import annotations

import os
import secrets
import signal
import string
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import unused_port

from runner.contract import events
from runner.contract.wire import LineDecoder, decode_event
from tests.support.ordinary_user import Command, as_ordinary_user
from tests.support.processes import descendants, mentioning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from aiohttp import ClientResponse

    from runner.contract.events import RunEvent

TOKEN = "service-token"
PROJECT = Path(__file__).parents[2]
_START_TIMEOUT_S = 60
_RUNNER = (sys.executable, "-m", "runner")


@dataclass(kw_only=True)
class RunningRunner:
    """A runner that is up."""

    url: str
    process: subprocess.Popen[bytes]
    data_dir: Path
    log: Path

    @property
    def sandboxes(self) -> list[Path]:
        """The run directories there are."""
        parent = self.data_dir / "sandboxes"
        return list(parent.iterdir()) if parent.is_dir() else []

    @asynccontextmanager
    async def request_run(
        self, prompt: str = "Hi", *, subject: str = "alice", **fields: Any
    ) -> AsyncIterator[ClientResponse]:
        """Ask for a run and yield the response; leaving the block disconnects."""
        body = {"run_id": new_run_id(), "subject": subject, "prompt": prompt, "language": "en"}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            ClientSession(headers=headers, timeout=ClientTimeout(total=120)) as http,
            http.post(f"{self.url}/runs", json=body | fields) as response,
        ):
            yield response

    async def run(self, prompt: str = "Hi", **fields: Any) -> list[RunEvent]:
        """Return all events of a run."""
        async with self.request_run(prompt, **fields) as response:
            assert response.status == 200, await response.text()
            return [event async for event in read_events(response)]

    def sandboxed(self) -> set[int]:
        """Return the processes in sandboxes: all below the runner but the local model's."""
        below = set(descendants(self.process.pid))
        return below - set(mentioning("runner.models.local_server"))

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """End the runner and return its exit code."""
        self.process.send_signal(sig)
        return self.process.wait(timeout=20)


async def read_events(response: ClientResponse) -> AsyncIterator[RunEvent]:
    """Yield the events of a stream as they come."""
    decoder = LineDecoder()
    async for data in response.content.iter_any():
        for line in decoder.feed(data):
            yield decode_event(line)


def text_of(told: list[RunEvent]) -> str:
    """Return the answer's text."""
    return "".join(event.text for event in told if isinstance(event, events.TextDelta))


def new_run_id() -> str:
    """Return a run id as the gateway makes them."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(15))


@contextmanager
def run_runner(directory: Path, **settings: str) -> Iterator[RunningRunner]:
    """Start `python -m runner` with *settings* as its environment; end it afterwards."""
    with _run_runner(directory, Command([*_RUNNER]), settings) as running:
        yield running


@contextmanager
def run_runner_as_user(directory: Path, **settings: str) -> Iterator[RunningRunner]:
    """Start it as an ordinary user, who owns *directory*, even if the tests are root."""
    with (
        as_ordinary_user(_RUNNER) as command,
        _run_runner(directory, command, settings) as running,
    ):
        yield running


@contextmanager
def _run_runner(
    directory: Path, command: Command, settings: Mapping[str, str]
) -> Iterator[RunningRunner]:
    port = unused_port()
    log = directory / "runner.log"
    environment = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(directory / "data"),
        "RUNNER_TOKEN": TOKEN,
        "PORT": str(port),
        "LOG_LEVEL": "debug",
        "DEMO": "off",
        **settings,
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            command.argv,
            pass_fds=command.fds,
            cwd=PROJECT,
            env=environment,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    running = RunningRunner(
        url=f"http://127.0.0.1:{port}", process=process, data_dir=directory / "data", log=log
    )
    try:
        _wait_until_up(running)
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(runner: RunningRunner) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        assert runner.process.poll() is None, runner.log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, runner.log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"{runner.url}/health", timeout=1):
                return
        except urllib.error.HTTPError:
            return  # up, if not well
        except OSError:
            time.sleep(0.05)
