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
from runner.contract.headers import SUBJECT
from runner.contract.requests import RunAccepted, RunList, RunState
from runner.contract.wire import LineDecoder, decode_event
from tests.support.ordinary_user import Command, as_ordinary_user
from tests.support.processes import descendants, mentioning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from aiohttp import ClientResponse
    from aiohttp.client import _RequestContextManager as _Request

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
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def sandboxes(self) -> list[Path]:
        """The run directories there are."""
        parent = self.data_dir / "sandboxes"
        return list(parent.iterdir()) if parent.is_dir() else []

    @asynccontextmanager
    async def request_run(
        self, prompt: str = "Hi", *, subject: str = "alice", **fields: Any
    ) -> AsyncIterator[ClientResponse]:
        """Ask for an attached run; yield its events' response, or the refusal.

        Leaving the block disconnects.
        """
        async with self.client(subject) as client:
            async with client.post(prompt, **({"attached": True} | fields)) as response:
                if response.status != 202:
                    yield response
                    return
                run_id = (await response.json())["run_id"]
            async with client.events(run_id) as response:
                yield response

    async def run(self, prompt: str = "Hi", **fields: Any) -> list[RunEvent]:
        """Return all events of a run."""
        async with self.request_run(prompt, **fields) as response:
            assert response.status == 200, await response.text()
            return [event async for event in read_events(response)]

    @asynccontextmanager
    async def client(self, subject: str = "alice") -> AsyncIterator[RunnerClient]:
        """Yield a client that speaks for *subject*."""
        headers = {"Authorization": f"Bearer {TOKEN}", SUBJECT: subject}
        async with ClientSession(headers=headers, timeout=ClientTimeout(total=120)) as http:
            yield RunnerClient(http, self.url, subject)

    def sandboxed(self) -> set[int]:
        """Return the processes in sandboxes: all below the runner but the local model's."""
        below = set(descendants(self.process.pid))
        return below - set(mentioning("runner.models.local_server"))

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """End the runner and return its exit code."""
        self.process.send_signal(sig)
        return self.process.wait(timeout=20)


class RunnerClient:
    """The runner's HTTP, as the gateway uses it for one subject."""

    def __init__(self, http: ClientSession, url: str, subject: str) -> None:
        self._http = http
        self._url = url
        self._subject = subject

    def post(self, prompt: str = "Hi", **fields: Any) -> _Request:
        """Ask for a run."""
        body = {"run_id": new_run_id(), "subject": self._subject, "prompt": prompt}
        return self._http.post(f"{self._url}/runs", json=body | {"language": "en"} | fields)

    async def start(self, prompt: str = "Hi", **fields: Any) -> str:
        """Start a run; return its id."""
        async with self.post(prompt, **fields) as response:
            assert response.status == 202, await response.text()
            return RunAccepted.model_validate_json(await response.read()).run_id

    def events(self, run_id: str, *, after: int | None = None) -> _Request:
        """Ask for a run's events."""
        query = {} if after is None else {"after": str(after)}
        return self._http.get(f"{self._url}/runs/{run_id}/events", params=query)

    async def raw_log(self, run_id: str, *, after: int | None = None) -> bytes:
        """Return a run's events to the end, as bytes without heartbeats."""
        async with self.events(run_id, after=after) as response:
            assert response.status == 200, await response.text()
            lines = (await response.read()).split(b"\n")
            return b"".join(line + b"\n" for line in lines if line)

    async def log(self, run_id: str, *, after: int | None = None) -> list[RunEvent]:
        """Return a run's events to the end."""
        return [
            decode_event(line) for line in (await self.raw_log(run_id, after=after)).splitlines()
        ]

    async def state(self, run_id: str) -> RunState:
        """Return a run's state."""
        async with self._http.get(f"{self._url}/runs/{run_id}") as response:
            assert response.status == 200, await response.text()
            return RunState.model_validate_json(await response.read())

    async def states(self, **query: str) -> list[RunState]:
        """Return the states of several runs."""
        async with self._http.get(f"{self._url}/runs", params=query) as response:
            assert response.status == 200, await response.text()
            return RunList.model_validate_json(await response.read()).runs

    async def cancel(self, run_id: str) -> RunState:
        """Cancel a run; return its state."""
        async with self._http.delete(f"{self._url}/runs/{run_id}") as response:
            assert response.status == 202, await response.text()
            return RunState.model_validate_json(await response.read())

    async def answer(self, run_id: str, permission: str, option: str) -> int:
        """Answer a permission request; return the status."""
        url = f"{self._url}/runs/{run_id}/permissions/{permission}"
        async with self._http.post(url, json={"option": option}) as response:
            return response.status

    async def status_of(self, method: str, path: str) -> int:
        """Return the status that a bare request gets."""
        async with self._http.request(method, f"{self._url}{path}") as response:
            return response.status


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
    port = int(settings.get("PORT") or unused_port())
    log = directory / "runner.log"
    environment = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(directory / "data"),
        "RUNNER_TOKEN": TOKEN,
        "PORT": str(port),
        "RUNNER_METRICS_PORT": "0",
        "LOG_LEVEL": "debug",
        "DEMO": "off",
        "RUNNER_ATTACH_GRACE_S": "2",
        "RUNNER_WARM_POOL": "0",  # what is not about it is quicker without
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
