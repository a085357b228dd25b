"""`make run`: one command, everything up; one signal, everything gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import descendants, files_with
from tests.support.stack import ROOT, start_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stack import StackProcess

pytestmark = pytest.mark.timeout(300)

CANARY = "sk-canary-5f1d0c7a9e"
NO_PROVIDER = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "DEMO": "on"}
LOCAL = {"DEFAULT_MODEL": "local/smollm2-135m"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
    """A running stack that was given every secret it takes through the environment.

    Its gateway has workers: each needs the secrets.
    """
    data_dir = tmp_path_factory.mktemp("stack") / "data"
    given = {"OPENAI_API_KEY": CANARY, "PB_SUPERUSER_PASSWORD": f"{CANARY}-password"}
    workers = {"GATEWAY_WORKERS": "2"}
    with start_stack(data_dir, **given, **workers, **NO_PROVIDER, **LOCAL) as running:
        running.wait_until_up()
        yield running


def sign_in(origin: str, collection: str, email: str, password: str) -> str:
    """Sign in through the gateway; return the token."""
    request = urllib.request.Request(
        f"{origin}/api/collections/{collection}/auth-with-password",
        data=json.dumps({"identity": email, "password": password}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return str(json.load(response)["token"])


def accounts(running: StackProcess) -> tuple[str, ...]:
    """The demo user and the superuser with their passwords, as printed."""
    demo = running.words(r"Demo user +(\S+) +password: (\S+)")
    return demo + running.words(r"Superuser +(\S+) +password: (\S+)")


def environments(pids: list[int]) -> Iterator[bytes]:
    """What /proc shows of each process: environment and command line."""
    for pid in pids:
        for name in ("environ", "cmdline"):
            try:
                yield Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue


def test_the_printed_curl_line_streams_a_real_answer(stack: StackProcess) -> None:
    """Pasted as it stands; the local model answers, the tail names the demo user."""
    answer = subprocess.run(
        stack.curl, capture_output=True, timeout=150, check=True, env={"PATH": os.defpath}
    ).stdout.decode()

    text, _, tail = answer.rpartition("\n[")
    assert tail == "✔ User Demo - Fertig!]\n"
    assert len(text.strip()) > 1


def test_the_block_stands_alone_on_stdout(stack: StackProcess) -> None:
    """Logs go to stderr, so that a program can read the block."""
    assert stack.block.startswith("\nOpenCode Multiuser is running.\n")
    assert "{" not in stack.block


def test_health_is_ok_once_the_block_is_printed(stack: StackProcess) -> None:
    """The block is a promise."""
    with urllib.request.urlopen(f"{stack.origin}/opencode/health", timeout=20) as response:
        assert json.load(response)["status"] == "ok"


def test_the_printed_demo_user_can_sign_in(stack: StackProcess) -> None:
    """With the printed password."""
    email, password = stack.words(r"Demo user +(\S+) +password: (\S+)")

    assert sign_in(stack.origin, "users", email, password)


def test_a_given_superuser_password_works_and_is_not_printed(stack: StackProcess) -> None:
    """The operator knows it already."""
    assert sign_in(stack.origin, "_superusers", "admin@example.com", f"{CANARY}-password")
    assert CANARY not in stack.block


def test_given_secrets_are_in_no_process_no_file_and_no_log(stack: StackProcess) -> None:
    """Not even in the environment that the stack itself was started with."""
    pids = [stack.process.pid, *descendants(stack.process.pid)]

    assert len(pids) > 3
    assert not [seen for seen in environments(pids) if CANARY.encode() in seen]
    assert files_with(CANARY, stack.data_dir) == []
    assert CANARY not in stack.err.read_text()


def test_generated_secrets_are_in_no_environment(stack: StackProcess) -> None:
    """They lie in files that only their owner can read."""
    pids = [stack.process.pid, *descendants(stack.process.pid)]
    values = [file.read_bytes().strip() for file in (stack.data_dir / "secrets").iterdir()]

    assert len(values) == 4
    assert not [seen for seen in environments(pids) for value in values if value in seen]


def test_a_second_stack_does_not_touch_the_same_data(stack: StackProcess) -> None:
    """Two PocketBases on one database would ruin it."""
    with start_stack(stack.data_dir) as second:
        assert second.process.wait(60) == 2
        assert f"another stack uses {stack.data_dir}" in second.err.read_text()
        second.seen.clear()
        second.data_dir = second.out  # what runs there is the first one's


def test_a_second_start_keeps_accounts_and_leaves_nothing_at_the_end(tmp_path: Path) -> None:
    """SIGTERM ends every process; what was stored is there again."""
    data_dir = tmp_path / "data"
    with start_stack(data_dir) as first:
        first.wait_until_up()
        known = accounts(first)
        assert first.end(signal.SIGTERM) == 0
        assert first.left_behind() == []

    with start_stack(data_dir) as second:
        second.wait_until_up()
        assert accounts(second) == known
        assert sign_in(second.origin, "users", *known[:2])
        assert sign_in(second.origin, "_superusers", *known[2:])
        assert second.end(signal.SIGINT) == 0
        assert second.left_behind() == []


def test_killing_the_supervisor_takes_everything_down(tmp_path: Path) -> None:
    """`kill -9` gives it no chance to clean up; the kernel tells the parts."""
    with start_stack(tmp_path / "data", GATEWAY_WORKERS="2") as stack:
        stack.wait_until_up()

        stack.end(signal.SIGKILL)

        assert stack.left_behind() == []


def test_a_part_that_dies_is_started_again(tmp_path: Path) -> None:
    """One line says which; callers get 503 meanwhile and then answers again."""
    with start_stack(tmp_path / "data") as stack:
        stack.wait_until_up()
        runner = next(
            pid
            for pid in stack.seen
            if b"-m\0runner\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )

        os.kill(runner, signal.SIGKILL)

        wait_until(lambda: "the runner ended (killed by SIGKILL)" in stack.err.read_text())
        wait_until(lambda: health_of(stack) == 200)
        answer = subprocess.run(stack.curl, capture_output=True, timeout=150, check=True).stdout
        assert answer.decode().endswith("\n[✔ User Demo - Fertig!]\n")


def health_of(stack: StackProcess) -> int:
    """The status of the health page; 0 where there is none."""
    try:
        with urllib.request.urlopen(f"{stack.origin}/opencode/health", timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        return exc.code


def wait_until(condition: Callable[[], bool], *, within_s: float = 60) -> None:
    """Look until *condition* holds; fail after *within_s*."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("GATEWAY_PROT", "8081", "gateway: unknown settings: GATEWAY_PROT "),
        ("RUNNER_SANDBX", "process", "runner: unknown settings: RUNNER_SANDBX "),
        ("MAX_CONCURRENT_PROCESSES", "many", "runner: MAX_CONCURRENT_PROCESSES: "),
        ("PORT", "many", "stack: PORT: "),
        ("OPENCODE_BIN", "/nowhere", "stack: the program `opencode` is missing: OPENCODE_BIN="),
        ("RUNNER_TOKEN_FILE", "/nowhere", "stack: RUNNER_TOKEN_FILE can't be read"),
    ],
)
def test_a_bad_setting_is_one_line_and_starts_nothing(
    name: str, value: str, line: str, tmp_path: Path
) -> None:
    """It names the setting; PocketBase has not even made its database."""
    with start_stack(tmp_path / "data", **{name: value}) as stack:
        assert stack.process.wait(60) == 2

        assert stack.err.read_text().startswith(line)
        assert stack.err.read_text().count("\n") == 1
        assert not (tmp_path / "data" / "pb_data" / "data.db").exists()


def test_a_taken_port_is_one_line_and_starts_nothing(tmp_path: Path) -> None:
    """It names the port and the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        with start_stack(tmp_path / "data", POCKETBASE_PORT=taken) as stack:
            assert stack.process.wait(60) == 2

            assert f"port {taken} is taken" in stack.err.read_text()
            assert "POCKETBASE_PORT" in stack.err.read_text()
            assert stack.err.read_text().count("\n") == 1


def test_a_password_that_pocketbase_refuses_is_one_line(tmp_path: Path) -> None:
    """The line says what is wrong with it, not what it is."""
    with start_stack(tmp_path / "data", DEMO_USER_PASSWORD="kurz") as stack:
        assert stack.process.wait(60) == 2

        *_, last = stack.err.read_text().splitlines()
        assert last.startswith("stack: PocketBase can't be set up: DEMO_USER_…: password: ")
        assert "kurz" not in last


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make on this machine")
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_ending_make_alone_ends_everything(sig: signal.Signals, tmp_path: Path) -> None:
    """Who started `make run` knows only make's process id."""
    with start_stack(tmp_path / "data", command=("make", "run")) as stack:
        stack.wait_until_up()

        stack.end(sig)

        assert stack.left_behind() == []


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make on this machine")
def test_without_python_make_says_what_to_install(tmp_path: Path) -> None:
    """One line, no shell errors."""
    for program in ("sh", "awk"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    make = str(shutil.which("make"))

    ended = subprocess.run(
        [make, "-C", str(ROOT), "run"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode != 0
    assert ended.stderr.count("\n") == 1
    assert "Python 3.11 or newer is missing" in ended.stderr
