"""`python -m stack`: PocketBase, runner and gateway on this machine, as `make run` starts them."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

import gateway.settings
import runner.settings
import runner.spawner.settings
from runner.plumbing.process import end_with_parent
from runner.plumbing.settings import BadSettings, refuse
from runner.plumbing.signals import StopSignals
from stack import first_run, orphans, parts, programs, secrets, settings
from stack.banner import Banner
from stack.health import until_healthy
from stack.lock import sole_user_of
from stack.ports import settle_ports
from stack.supervisor import PartFailed, supervise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stack.parts import Part
    from stack.settings import StackSettings

_READY_WITHIN_S = 120.0
_ORPHANS_END_WITHIN_S = 5.0


def main() -> int:
    """Run the stack until a signal; return the exit status."""
    if _arguments().end_with_parent:
        end_with_parent()
    try:
        if secrets.take_from_environment(os.environ):
            _execute_anew()
        os.chdir(settings.ROOT)
        chosen = settle_ports(settings.load())
        with sole_user_of(chosen.data_dir):
            _make_folders(chosen.data_dir)
            return _run(chosen)
    except BadSettings as exc:
        refuse("stack", exc)
    except KeyboardInterrupt:  # before there was anything to end
        return 0


def _run(chosen: StackSettings) -> int:
    known = secrets.open_secrets(chosen.data_dir / "secrets", os.environ)
    pocketbase = programs.pocketbase()
    programs.must_have_opencode(chosen.opencode_bin)
    environ = dict(os.environ)
    set_up = parts.pocketbase_set_up(chosen, known, environ, pocketbase)
    spawners = (parts.spawner(chosen, environ),) if chosen.starts_spawner else ()
    runs = parts.runner(chosen, known, environ)
    public = parts.gateway(chosen, known, environ)
    for part in spawners:
        _check("spawner", runner.spawner.settings.load, part)
    _check("runner", runner.settings.load, runs)
    _check("gateway", gateway.settings.load, public)
    services = (parts.pocketbase(chosen, known, environ, pocketbase), *spawners, runs, public)
    orphans.adopt_orphans()
    try:
        asyncio.run(_serve(chosen, known, set_up, services))
    except PartFailed as exc:
        sys.stderr.write(f"stack: {exc}\n")
        return 1
    finally:
        orphans.end_orphans(within_s=_ORPHANS_END_WITHIN_S)
    return 0


async def _serve(
    chosen: StackSettings,
    known: dict[str, secrets.Secret],
    set_up: Part,
    services: tuple[Part, ...],
) -> None:
    stop = StopSignals()
    stop.install()
    _say("preparing PocketBase …")
    accounts = await first_run.set_up(set_up)
    banner = Banner(
        settings=chosen,
        superuser_password=known["PB_SUPERUSER_PASSWORD"],
        demo_password=known["DEMO_USER_PASSWORD"],
        accounts=accounts,
    )

    def show() -> None:
        sys.stdout.write(banner.text())
        sys.stdout.flush()

    if stop.requested.is_set():
        return
    _say("starting PocketBase, runner and gateway …")
    await supervise(
        services,
        stop=stop,
        until_ready=lambda: until_healthy(chosen.origin, within_s=_READY_WITHIN_S),
        on_ready=show,
        say=_say,
    )
    _say("everything has ended")


def _check(service: str, load: Callable[[], object], part: Part) -> None:
    """Let a service read the settings it is going to get; a typo ends here, not half-way."""
    with settings.environment(part.env):
        try:
            load()
        except BadSettings as exc:
            refuse(service, exc)


def _make_folders(data_dir: Path) -> None:
    """Make what the parts expect.

    Raises:
        BadSettings: It can't be written.
    """
    try:
        for name in ("pb_data", "tmp"):
            (data_dir / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise BadSettings(f"DATA_DIR {data_dir} can't be written: {exc.strerror}") from exc


def _execute_anew() -> None:
    """Replace this process by itself, so that /proc shows the changed environment."""
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "stack", *sys.argv[1:]], os.environ)  # noqa: S606


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    parser.add_argument(
        "--end-with-parent",
        action="store_true",
        help="end when the process that started this one ends (make)",
    )
    return parser.parse_args()


def _say(words: str) -> None:
    sys.stderr.write(f"· {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
