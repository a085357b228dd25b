"""All or none: parts start together and end together. Small commands stand in for the parts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runner.plumbing.signals import StopSignals
from stack.parts import Part
from stack.supervisor import PartFailed, supervise
from tests.support.processes import eventually, mentioning

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

STUBBORN = "trap '' TERM; echo $$ >> {log}; sleep 60 & wait; wait"


def part(name: str, script: str, tmp_path: Path, *, grace_s: float = 5.0) -> Part:
    """A part whose processes can be told by *tmp_path* in their environment."""
    return Part(
        name=name,
        command=("/bin/sh", "-c", script),
        env={"PATH": os.defpath, "MARK": str(tmp_path)},
        grace_s=grace_s,
    )


def sleeper(name: str, tmp_path: Path) -> Part:
    """It notes its end in `ended`."""
    script = (
        f"trap 'echo {name} >> {tmp_path}/ended; exit 0' TERM; echo >> {tmp_path}/begun; "
        "sleep 60 & wait"
    )
    return part(name, script, tmp_path)


def lines_in(path: Path) -> int:
    """How many lines *path* has, none where it is not there."""
    return path.read_text().count("\n") if path.exists() else 0


async def at_once() -> None:
    """A stack that is ready at once."""


async def never() -> None:
    """A stack that never gets ready."""
    await asyncio.Event().wait()


async def test_a_stop_ends_the_parts_in_reverse_order(tmp_path: Path) -> None:
    """The gateway stops taking requests before what it needs goes away."""
    stop = StopSignals()
    names = ["first", "second", "third"]

    await supervise(
        [sleeper(name, tmp_path) for name in names],
        stop=stop,
        until_ready=lambda: eventually(lambda: lines_in(tmp_path / "begun") == len(names)),
        on_ready=stop.requested.set,
    )

    assert (tmp_path / "ended").read_text().split() == names[::-1]
    await eventually(lambda: not mentioning(str(tmp_path)))


@pytest.mark.parametrize(
    "ready", [pytest.param(at_once, id="later"), pytest.param(never, id="early")]
)
async def test_a_part_that_keeps_ending_ends_all_and_is_named(
    ready: Callable[[], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    """Half a stack helps nobody."""
    parts = [sleeper("first", tmp_path), part("second", "exit 3", tmp_path)]

    with pytest.raises(PartFailed, match=r"the second ended \(exit status 3\)"):
        await supervise(parts, stop=StopSignals(), until_ready=ready, on_ready=lambda: None)

    await eventually(lambda: not mentioning(str(tmp_path)))


async def test_a_part_that_ends_once_is_started_again(tmp_path: Path) -> None:
    """And somebody is told; the others go on."""
    stop = StopSignals()
    told: list[str] = []
    lives = tmp_path / "lives"
    script = (
        f"echo x >> {lives}; [ $(wc -l < {lives}) = 2 ] && exec sleep 60; "
        f"until [ -e {tmp_path}/ready ]; do sleep 0.02; done; exit 7"
    )

    async def stop_in_the_second_life() -> None:
        (tmp_path / "ready").touch()
        await eventually(lambda: lines_in(lives) == 2)
        stop.requested.set()

    stopping: list[asyncio.Task[None]] = []
    await supervise(
        [sleeper("first", tmp_path), part("second", script, tmp_path)],
        stop=stop,
        until_ready=at_once,
        on_ready=lambda: stopping.append(asyncio.create_task(stop_in_the_second_life())),
        say=told.append,
    )

    assert told == ["the second ended (exit status 7); starting it again …"]
    await eventually(lambda: not mentioning(str(tmp_path)))


async def test_a_part_that_will_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    """After its time of grace."""
    stop = StopSignals()
    log = tmp_path / "stubborn"
    stubborn = part("stubborn", STUBBORN.format(log=log), tmp_path, grace_s=0.2)

    await supervise(
        [stubborn],
        stop=stop,
        until_ready=lambda: eventually(log.exists),
        on_ready=stop.requested.set,
    )

    await eventually(lambda: not mentioning(str(tmp_path)))


async def test_a_second_signal_does_not_wait_for_a_stubborn_part(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice means it."""
    stop = StopSignals()
    stop.install()
    log = tmp_path / "stubborn"
    stubborn = part("stubborn", STUBBORN.format(log=log), tmp_path, grace_s=600)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)

    async with asyncio.timeout(20):
        await supervise(
            [stubborn], stop=stop, until_ready=lambda: eventually(log.exists), on_ready=twice
        )

    await eventually(lambda: not mentioning(str(tmp_path)))


async def test_a_part_that_can_not_be_started_is_named(tmp_path: Path) -> None:
    """And what was started before it is ended."""
    missing = Part(name="gateway", command=(str(tmp_path / "nowhere"),), env={})

    with pytest.raises(PartFailed, match="the gateway can't be started: No such file"):
        await supervise(
            [sleeper("first", tmp_path), missing],
            stop=StopSignals(),
            until_ready=never,
            on_ready=lambda: None,
        )

    await eventually(lambda: not mentioning(str(tmp_path)))


async def test_a_stack_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    """The reason is passed on."""

    async def too_late() -> None:
        raise PartFailed("not ready after 120 s: runner down")

    with pytest.raises(PartFailed, match="runner down"):
        await supervise(
            [sleeper("only", tmp_path)],
            stop=StopSignals(),
            until_ready=too_late,
            on_ready=lambda: None,
        )

    await eventually(lambda: not mentioning(str(tmp_path)))


async def test_orphans_of_a_killed_part_are_ended_too(tmp_path: Path) -> None:
    """A part may leave processes in sessions of their own, where no group signal finds them."""
    script = (
        "import asyncio, sys; sys.path.insert(0, '.')\n"
        "from stack import orphans\n"
        "from tests.unit.stack.test_supervisor import *\n"
        "from pathlib import Path\n"
        "home = Path(sys.argv[1])\n"
        "run = 'setsid sh -c \"echo $$ > ' + str(home / 'child') + '; sleep 60\" & wait'\n"
        "async def main():\n"
        "    stop = StopSignals()\n"
        "    await supervise([part('p', run, home)], stop=stop, on_ready=stop.requested.set,\n"
        "                    until_ready=lambda: eventually((home / 'child').exists))\n"
        "orphans.adopt_orphans()\n"
        "asyncio.run(main())\n"
        "orphans.end_orphans(within_s=5)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path))

    assert await process.wait() == 0

    assert (tmp_path / "child").exists()
    assert mentioning(str(tmp_path)) == []
