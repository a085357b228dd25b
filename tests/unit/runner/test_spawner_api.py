"""What the spawner can be asked, and what it makes of it: no engine is needed to look at that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from runner.spawner.directories import SHOWN, BadRunDirectory, RunDirectory, look_at
from runner.spawner.messages import REQUEST, RunLimits, Start
from runner.spawner.profile import container

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS = {
    "memory_bytes": 1 << 30,
    "processes": 64,
    "cpus": 1.5,
    "disk_bytes": 1 << 28,
    "open_files": 256,
}
START: Mapping[str, Any] = {"do": "start", "run": "opencode-a1", "limits": LIMITS}


def test_a_start_says_run_and_limits() -> None:
    """That is all there is to say."""
    request = REQUEST.validate_python(dict(START))

    assert isinstance(request, Start)
    assert set(Start.model_fields) == {"do", "run", "limits"}
    assert set(RunLimits.model_fields) == set(LIMITS)


@pytest.mark.parametrize(
    "more",
    [
        {"image": "debian"},
        {"mounts": ["/:/host"]},
        {"privileged": True},
        {"command": ["sh"]},
        {"user": "0"},
        {"environment": {"LD_PRELOAD": "x"}},
        {"network": "host"},
        {"limits": LIMITS | {"devices": ["/dev/sda"]}},
        {"limits": LIMITS | {"memory_bytes": 0}},
        {"limits": LIMITS | {"memory_bytes": -1}},
        {"limits": LIMITS | {"processes": 10**9}},
        {"limits": LIMITS | {"cpus": float("inf")}},
        {"limits": LIMITS | {"cpus": float("nan")}},
        {"limits": LIMITS | {"open_files": "256"}},
        {"do": "exec"},
        {"do": "create"},
        *({"run": name} for name in ("", ".", "..", "../x", "a/b", "/", "a\0b", "a\n", "x" * 129)),
        {"run": ["a"]},
    ],
    ids=str,
)
def test_anything_else_is_refused(more: dict[str, Any]) -> None:
    """A field more, a limit out of bounds, a name that leads elsewhere."""
    with pytest.raises(ValidationError):
        REQUEST.validate_python({**START, **more})


def test_a_container_has_no_privileges() -> None:
    """The whole of what the engine is told, where it matters."""
    directory = RunDirectory(Path("/runs/a"), uid=1234, identities=dict.fromkeys(SHOWN, "1:2"))

    made = container(directory, RunLimits.model_validate(LIMITS), image="i", runtime="", labels={})

    host = made["HostConfig"]
    assert made["User"] == "1234:1234"
    assert host["CapDrop"] == ["ALL"]
    assert "CapAdd" not in host
    assert "Privileged" not in host
    assert "Devices" not in host
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["SecurityOpt"][0] == "no-new-privileges:true"
    assert "SCMP_ACT_ERRNO" in host["SecurityOpt"][1]
    assert host["MemorySwap"] == host["Memory"] == LIMITS["memory_bytes"]
    assert [mount["Source"] for mount in host["Mounts"]] == [f"/runs/a/{name}" for name in SHOWN]
    assert [mount["Target"] for mount in host["Mounts"] if mount["ReadOnly"]] == ["/run/runner"]


def furnished(directory: Path) -> Path:
    for name in SHOWN:
        (directory / name).mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(directory / name, 1234, 1234)
    return directory


def test_a_run_directory_tells_whose_it_is(tmp_path: Path) -> None:
    """The container runs as who owns what it sees."""
    furnished(tmp_path / "a")

    assert look_at(tmp_path, "a").uid == (1234 if os.geteuid() == 0 else os.geteuid())


@pytest.mark.parametrize("name", SHOWN)
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    """Neither the run directory nor what is in it may stand for something else."""
    run = furnished(tmp_path / "a")
    (run / name).rmdir()
    (run / name).symlink_to("/etc")
    (tmp_path / "b").symlink_to("/")

    for wanted in ("a", "b", "missing"):
        with pytest.raises(BadRunDirectory):
            look_at(tmp_path, wanted)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to make such directories")
def test_nothing_runs_as_root(tmp_path: Path) -> None:
    """Nor for two users at once."""
    run = furnished(tmp_path / "a")
    os.chown(run / "home", 0, 0)
    with pytest.raises(BadRunDirectory, match="several owners"):
        look_at(tmp_path, "a")

    for name in SHOWN:
        os.chown(run / name, 0, 0)
    with pytest.raises(BadRunDirectory, match="root"):
        look_at(tmp_path, "a")
