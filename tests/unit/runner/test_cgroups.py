"""Where this process stands in the cgroup trees, and what a cgroup is told."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import pytest

from runner.sandbox.base import Limits
from runner.sandbox.cgroups import Cgroups, Hierarchy, parse_hierarchy, read_hierarchy

LIMITS = Limits(memory_bytes=64 << 20, processes=16, cpus=0.5, disk_bytes=1 << 20)

HYBRID = """\
24 23 0:22 / /sys rw - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
33 30 0:29 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
"""


def test_hybrid_host_has_both_versions() -> None:
    """Controllers that share a mount are found there; the rest of the mounts don't matter."""
    membership = "5:cpu,cpuacct:/user\n4:pids:/\n3:memory:/user/session\n0::/user.slice\n"

    assert parse_hierarchy(HYBRID, membership) == Hierarchy(
        unified=Path("/sys/fs/cgroup/unified/user.slice"),
        unified_top=Path("/sys/fs/cgroup/unified"),
        v1={
            "memory": Path("/sys/fs/cgroup/memory/user/session"),
            "pids": Path("/sys/fs/cgroup/pids"),
            "cpu": Path("/sys/fs/cgroup/cpu,cpuacct/user"),
        },
    )


def test_version_2_host_has_one_tree() -> None:
    """The usual systemd host."""
    mounts = "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"

    found = parse_hierarchy(mounts, "0::/system.slice/runner.service\n")

    assert found.unified == Path("/sys/fs/cgroup/system.slice/runner.service")
    assert found.v1 == {}


def test_container_stands_at_the_top_of_what_is_mounted() -> None:
    """A path of the host that is the mount's root is not repeated below the mount point."""
    mounts = "50 49 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"

    for path in ("/docker/abc", "/elsewhere"):
        found = parse_hierarchy(mounts, f"3:memory:{path}\n")
        assert found.v1 == {"memory": Path("/sys/fs/cgroup/memory")}


def test_host_without_cgroups_enforces_nothing(tmp_path: Path) -> None:
    """Then there is no cgroup, and the backend says so."""
    cgroups = Cgroups.detect(read_hierarchy(tmp_path))

    assert cgroups.enforcer("memory") is None
    assert cgroups.create("opencode-run-x", LIMITS) is None


def test_directories_that_can_not_be_written_are_not_used(tmp_path: Path) -> None:
    """What looks like a cgroup but lets nobody in enforces nothing."""
    found = Hierarchy(unified=tmp_path, unified_top=tmp_path, v1={"memory": tmp_path})

    cgroups = Cgroups.detect(found)

    assert cgroups.enforcer("memory") is None
    assert list(tmp_path.iterdir()) == []


needs_cgroups = pytest.mark.skipif(
    Cgroups.detect(read_hierarchy()).enforcer("processes") is None,
    reason="no cgroup can be made here",
)


@needs_cgroups
async def test_cgroup_holds_counts_and_ends_its_processes() -> None:
    """A process in it meets the limit; killing takes everything; then it is gone."""
    cgroups = Cgroups.detect(read_hierarchy())
    cgroup = cgroups.create(f"opencode-test-{secrets.token_hex(4)}", LIMITS)
    assert cgroup is not None
    try:
        enter = "; ".join(f"echo $$ > {path}/cgroup.procs" for path in cgroup.directories)
        script = f"{enter}; for i in $(seq 30); do sleep 60 & done; echo done; wait"
        process = await asyncio.create_subprocess_exec(
            *("/usr/bin/bash", "-c", script),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            while not cgroup.counters().refused_forks:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(cgroup.kill)
            await process.wait()
    finally:
        cgroup.kill()
        cgroup.remove()

    assert not any(path.exists() for path in cgroup.directories)


@needs_cgroups
def test_cgroup_a_killed_runner_left_is_made_anew() -> None:
    """Its counters would otherwise be taken for ours."""
    cgroups = Cgroups.detect(read_hierarchy())
    name = f"opencode-test-{os.getpid()}"
    left = cgroups.create(name, LIMITS)

    again = cgroups.create(name, LIMITS)

    assert left is not None
    assert again is not None
    assert again.counters().refused_forks == 0
    again.remove()
    assert not any(path.exists() for path in again.directories)
