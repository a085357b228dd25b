"""What every sandbox backend promises, whatever it keeps apart."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.contract.problems import OpenCodeUnavailable
from runner.sandbox.base import Limits, Sandbox, SandboxBackend, SandboxSpec
from runner.sandbox.bubblewrap import BubblewrapBackend
from runner.sandbox.cgroups import Cgroups, read_hierarchy
from runner.sandbox.docker import DockerBackend
from runner.sandbox.mark import cgroup_name
from runner.sandbox.process import ProcessBackend
from tests.support.ordinary_user import REPOSITORY, pytest_as_ordinary_user
from tests.support.spawner import run_spawner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

LIMITS = Limits(memory_bytes=512 << 20, processes=64, cpus=1.0, disk_bytes=64 << 20, open_files=256)
STUBBORN = "trap '' TERM HUP INT; echo ready; while :; do sleep 0.1; done"


@pytest.fixture(params=["process", "bubblewrap", "docker"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SandboxBackend]:
    """Each backend in turn: a test that takes this one is a promise of the protocol."""
    match request.param:
        case "process":
            yield ProcessBackend()
        case "bubblewrap":
            yield BubblewrapBackend()
        case _:
            with run_spawner(tmp_path) as spawner:
                yield DockerBackend(spawner.socket, tmp_path)
                assert spawner.containers() == []


def source_of(backend: SandboxBackend, tmp_path: Path) -> str:
    """What makes the same backend in another process."""
    if isinstance(backend, DockerBackend):
        return f"DockerBackend(Path({str(backend.spawner)!r}), Path({str(tmp_path)!r}))"
    return f"{type(backend).__name__}()"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run directory, furnished as the runner does it."""
    return furnished(tmp_path / "run")


def furnished(directory: Path) -> Path:
    directory.mkdir(mode=0o711)
    for name in ("home", "workspace", "tmp"):
        (directory / name).mkdir(mode=0o700)
    return directory


def shell(script: str, directory: Path, *, path: tuple[Path, ...] = ()) -> SandboxSpec:
    return SandboxSpec(
        command=("/usr/bin/bash", "-c", script),
        directory=directory,
        environment=lambda inside: {
            "HOME": str(inside.home),
            "TMPDIR": str(inside.tmp),
            "DOOR": inside.door_url.removeprefix("http://").replace(":", "/"),
        },
        limits=LIMITS,
        path=path,
        grace_s=0.3,
    )


async def output(sandbox: Sandbox) -> str:
    assert sandbox.process.stdout
    async with asyncio.timeout(20):
        return (await sandbox.process.stdout.read()).decode()


async def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


def processes_with(mark: str) -> list[int]:
    """Living processes that have *mark* in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line:
                found.append(int(entry.name))
    return found


async def test_a_host_that_can_make_sandboxes_passes_the_check(backend: SandboxBackend) -> None:
    """The check tries for real, and leaves nothing behind."""
    before = set(Path(tempfile.gettempdir()).glob("opencode-check-*"))

    await backend.check()

    assert set(Path(tempfile.gettempdir()).glob("opencode-check-*")) <= before


def test_every_limit_is_accounted_for(backend: SandboxBackend) -> None:
    """What enforces a limit is told in words that documentation explains."""
    enforced = backend.enforced(LIMITS)

    assert set(enforced) == {"memory", "processes", "cpus", "disk", "open_files", "file_size"}
    assert set(enforced.values()) <= {
        *("cgroup-v2", "cgroup-v1", "container", "rlimit", "watch", "nothing")
    }


async def test_pipes_lead_to_the_command(backend: SandboxBackend, directory: Path) -> None:
    """Standard input, output and error are the command's own, and apart."""
    async with backend.start(shell("cat; echo oops >&2; exit 3", directory)) as sandbox:
        assert sandbox.process.stdin
        assert sandbox.process.stderr
        sandbox.process.stdin.write("grüße".encode())
        sandbox.process.stdin.close()

        assert await output(sandbox) == "grüße"
        assert await sandbox.process.stderr.read() == b"oops\n"
        assert await sandbox.process.wait() == 3
        assert await sandbox.verdict() is None


async def test_environment_is_what_the_spec_says(
    backend: SandboxBackend, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the runner's own environment gets in."""
    monkeypatch.setenv("OPENAI_API_KEY", "canary")

    async with backend.start(shell("exec env", directory)) as sandbox:
        names = {line.partition("=")[0] for line in (await output(sandbox)).splitlines()}

    # bash adds SHLVL, _ and PWD; a C locale may be told to Python programs.
    assert names - {"SHLVL", "_", "PWD", "OLDPWD", "LC_CTYPE"} == {
        "PATH",
        "HOME",
        "TMPDIR",
        "DOOR",
    }


async def test_what_it_writes_is_in_its_directory(backend: SandboxBackend, directory: Path) -> None:
    """It begins in its workspace; HOME and temporary files are its own too."""
    script = "pwd; echo a > file; echo b > ~/file; echo c > $TMPDIR/file; cat $TMPDIR/file"
    async with backend.start(shell(script, directory)) as sandbox:
        assert await output(sandbox) == f"{sandbox.inside.workspace}\nc\n"

    assert (directory / "workspace" / "file").read_text() == "a\n"
    assert (directory / "home" / "file").read_text() == "b\n"


async def test_what_the_caller_laid_ready_is_found(
    backend: SandboxBackend, directory: Path
) -> None:
    """Files put there before can be read and changed."""
    (directory / "home" / ".config").mkdir(mode=0o700)
    (directory / "home" / ".config" / "settings").write_text("ready")

    script = "cat ~/.config/settings; echo changed > ~/.config/settings"
    async with backend.start(shell(script, directory)) as sandbox:
        assert await output(sandbox) == "ready"

    assert (directory / "home" / ".config" / "settings").read_text() == "changed\n"


async def test_door_leads_to_the_caller(backend: SandboxBackend, directory: Path) -> None:
    """The address the command is told is served by whoever holds the door."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        writer.close()

    async with backend.start(shell("cat < /dev/tcp/$DOOR", directory)) as sandbox:
        server = await asyncio.start_server(answer, sock=sandbox.door)
        assert await output(sandbox) == "welcome"
        server.close()


async def test_programs_of_the_host_can_be_lent(
    backend: SandboxBackend, directory: Path, tmp_path: Path
) -> None:
    """A program outside the system folders is found by its name, when the spec says so."""
    if backend.name == "docker":
        pytest.skip("an image brings its own programs")
    shutil.copy("/usr/bin/echo", tmp_path / "lent")

    for path in (tmp_path / "lent", tmp_path):
        async with backend.start(shell("lent it", directory, path=(path,))) as sandbox:
            assert await output(sandbox) == "it\n"


async def test_command_that_is_not_there_is_a_clear_error(
    backend: SandboxBackend, directory: Path
) -> None:
    """OpenCode missing is told apart from a sandbox that can't be made."""
    spec = SandboxSpec(
        command=("/nowhere/no-such-program", "acp"),
        directory=directory,
        environment=lambda _: {},
        limits=LIMITS,
    )

    with pytest.raises(OpenCodeUnavailable):
        async with backend.start(spec):
            pass


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("echo ready; cat", id="ends-at-eof"),
        pytest.param("echo ready; exec sleep 60", id="ends-at-sigterm"),
        pytest.param(STUBBORN, id="ends-at-sigkill"),
        pytest.param("sleep 60 & echo ready", id="leaves-a-child-behind"),
        pytest.param("setsid bash -c 'echo ready; sleep 60; :' & wait", id="leaves-its-group"),
    ],
)
async def test_nothing_outlives_the_block(
    backend: SandboxBackend, directory: Path, script: str
) -> None:
    """However stubborn the command is, everything it started is gone at the end."""
    mark = secrets.token_hex(8)
    async with backend.start(shell(f": {mark}\n{script}", directory)) as sandbox:
        assert sandbox.process.stdout
        async with asyncio.timeout(20):
            assert await sandbox.process.stdout.readline() == b"ready\n"

    assert sandbox.process.returncode is not None
    assert sandbox.door.fileno() == -1
    assert processes_with(mark) == []


async def test_cancelled_twice_still_ends_everything(
    backend: SandboxBackend, directory: Path
) -> None:
    """Impatience does not cut cleaning up short."""
    mark = secrets.token_hex(8)
    started = asyncio.Event()

    async def run() -> None:
        async with backend.start(shell(f": {mark}\n{STUBBORN}", directory)) as sandbox:
            assert sandbox.process.stdout
            await sandbox.process.stdout.readline()
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    async with asyncio.timeout(20):
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert processes_with(mark) == []


async def test_cancelled_while_starting_leaves_nothing(
    backend: SandboxBackend, tmp_path: Path
) -> None:
    """Whenever a start is given up, nothing of it stays."""
    mark = secrets.token_hex(8)

    async def run(directory: Path) -> None:
        async with backend.start(shell(f": {mark}\n{STUBBORN}", directory)):
            await asyncio.Event().wait()

    for number in range(12):
        task = asyncio.create_task(run(furnished(tmp_path / str(number))))
        await asyncio.sleep(number * 0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert processes_with(mark) == []
    assert cgroups(*tmp_path.iterdir()) == []


async def test_many_at_once_leave_no_descriptor_open(
    backend: SandboxBackend, tmp_path: Path
) -> None:
    """Start and end cost nothing that stays."""

    async def run(number: int) -> str:
        directory = furnished(tmp_path / str(number))
        async with backend.start(shell(f"echo {number}", directory)) as sandbox:
            return await output(sandbox)

    await run(99)
    before = open_descriptors()
    answers = await asyncio.gather(*(run(number) for number in range(8)))

    assert answers == [f"{number}\n" for number in range(8)]
    assert open_descriptors() == before
    assert cgroups(*tmp_path.iterdir()) == []


async def test_open_files_and_file_size_are_bounded(
    backend: SandboxBackend, directory: Path
) -> None:
    """The two limits that the kernel holds for everybody."""
    async with backend.start(shell("ulimit -n; ulimit -f; ulimit -c", directory)) as sandbox:
        assert await output(sandbox) == f"256\n{(64 << 20) // 1024}\n0\n"


@asynccontextmanager
async def runner_to_be_killed(
    source: str, directory: Path, mark: str, *, settled: bool
) -> AsyncIterator[int]:
    """Yield the process id of another runner that has a sandbox running in *directory*."""
    program = f"""
import asyncio, sys
from pathlib import Path
from tests.contract.test_sandbox_backends import *
async def main(mark):
    script = f"echo ready; exec bash -c 'sleep 4321; :' {{mark}}"
    async with {source}.start(shell(script, Path({str(directory)!r}))) as sandbox:
        if {settled}:
            await sandbox.process.stdout.readline()
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main(sys.stdin.readline().strip()))
"""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), cwd=REPOSITORY, stdin=pipe, stdout=pipe
    )
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{mark}\n".encode())
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sandboxes_of_a_killed_runner_end(
    backend: SandboxBackend, directory: Path, tmp_path: Path
) -> None:
    """`kill -9` of the runner ends its sandboxes at once; the sweep finds what else is left."""
    mark = secrets.token_hex(8)
    source = source_of(backend, tmp_path)
    async with runner_to_be_killed(source, directory, mark, settled=True) as pid:
        await until(lambda: processes_with(mark) != [])  # between two programs it has no name
        os.kill(pid, signal.SIGKILL)
        if backend.name != "process":  # a process group does not die with its leader
            await until(lambda: processes_with(mark) == [])

    await until_swept(backend, directory, mark)

    assert cgroups(directory) == []


@pytest.mark.parametrize("attempt", range(3))
async def test_sandboxes_killed_in_their_first_moments_are_swept(
    backend: SandboxBackend, directory: Path, tmp_path: Path, attempt: int
) -> None:
    """Also when the runner dies while a sandbox is being made, the next start clears it up."""
    mark = secrets.token_hex(8)
    source = source_of(backend, tmp_path)
    async with runner_to_be_killed(source, directory, mark, settled=False) as pid:
        os.kill(pid, signal.SIGKILL)

    await asyncio.sleep(attempt * 0.02)  # the sweep meets it in one state or another
    await until_swept(backend, directory, mark)

    assert cgroups(directory) == []


async def until_swept(backend: SandboxBackend, directory: Path, mark: str) -> None:
    """Sweep; a sandbox that was still being made is found as soon as it is one."""
    async with asyncio.timeout(20):
        await backend.sweep(directory)
        while processes_with(mark):
            await asyncio.sleep(0.05)
            await backend.sweep(directory)


async def test_sweeping_touches_nothing_else(backend: SandboxBackend, tmp_path: Path) -> None:
    """A directory with a forged mark names no process or cgroup that isn't its own."""
    forged = furnished(tmp_path / "forged")
    mine = await asyncio.create_subprocess_exec("sleep", "60")
    (forged / "sandbox.json").write_text(
        f'{{"pid": {mine.pid}, "started": 1, "cgroups": ["/sys/fs/cgroup", "{tmp_path}", 7]}}'
    )
    try:
        await backend.sweep(forged)

        assert mine.returncode is None
        assert tmp_path.exists()
    finally:
        mine.kill()
        await mine.wait()


async def test_a_cgroup_whose_runner_died_before_it_left_a_mark_is_swept(directory: Path) -> None:
    """Its name alone says whose it was."""
    limited = Cgroups.detect(read_hierarchy()).create(cgroup_name(directory), LIMITS)
    if limited is None:
        pytest.skip("this host lets us make no cgroup")

    await BubblewrapBackend().sweep(directory)

    assert cgroups(directory) == []


def cgroups(*directories: Path) -> list[str]:
    """Cgroups of the sandboxes of *directories*, wherever in the trees they are."""
    names = {cgroup_name(directory) for directory in directories}
    return [
        place for place, below, _ in os.walk("/sys/fs/cgroup") for name in below if name in names
    ]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests already run as an ordinary user")
@pytest.mark.timeout(180)
def test_all_this_holds_for_an_ordinary_user() -> None:
    """The same suite once more, by somebody without any rights."""
    result = pytest_as_ordinary_user(__file__)

    assert result.returncode == 0, result.stdout[-4000:]
