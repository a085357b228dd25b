"""What a sandbox's container is, as data for Docker's API. Nothing here is the caller's to say
but the run's name and its limits."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from runner.sandbox.seccomp import docker_profile

if TYPE_CHECKING:
    from pathlib import Path

    from runner.spawner.directories import RunDirectory
    from runner.spawner.messages import RunLimits

INSIDE = {"home": "/home/user", "workspace": "/workspace", "door": "/run/runner"}
"""Where the container sees what of the run directory."""

LABEL_RUNS = "opencode-multiuser.runs"
LABEL_RUN = "opencode-multiuser.run"

_INIT = ("/usr/bin/python3", "-S", "-P", "-m", "runner.container")
_INIT_PATH = "PYTHONPATH=/opt/sandbox"
_OWN_PROCESSES = 1  # the container's first one
# gVisor: a kernel that numbers files itself, and whose threads the host counts as the container's.
# There the container's first process alone sees to the limit.
_OWN_KERNEL = "runsc"
_KERNEL_THREADS = 256
_SHM_BYTES = 16 << 20
_OOM_SCORE = 500  # when the host itself runs out of memory, sandboxes go first
# Docker's own list, and /sys: what it tells is the machine's.
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/proc/interrupts", "/sys/devices/virtual/powercap", "/sys"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def scope_of(runs: Path) -> str:
    """Return what tells containers of runs below *runs* from those of other stacks."""
    return hashlib.sha256(os.fsencode(runs.resolve())).hexdigest()[:16]


def container(
    directory: RunDirectory, limits: RunLimits, *, image: str, runtime: str, labels: dict[str, str]
) -> dict[str, Any]:
    """Return the container for the run whose directory is *directory*."""
    own_kernel = runtime.startswith(_OWN_KERNEL)
    identities = {} if own_kernel else directory.identities
    return {
        "Image": image,
        "Entrypoint": list(_INIT),
        "Cmd": [f"{INSIDE[name]}={identity}" for name, identity in identities.items()],
        "User": f"{directory.uid}:{directory.uid}",
        "WorkingDir": "/",
        "Env": [_INIT_PATH],
        "Hostname": "sandbox",
        "Labels": labels,
        "Healthcheck": {"Test": ["NONE"]},
        "NetworkDisabled": True,
        **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), True),
        **dict.fromkeys(("OpenStdin", "StdinOnce"), True),
        "HostConfig": {
            **_isolation(runtime),
            **_limits(limits, own_kernel=own_kernel),
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": str(directory.path / name),
                    "Target": target,
                    "ReadOnly": name == "door",
                    "BindOptions": {"Propagation": "rprivate"},
                }
                for name, target in INSIDE.items()
            ],
        },
    }


def _isolation(runtime: str) -> dict[str, Any]:
    return {
        "Runtime": runtime,
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={json.dumps(docker_profile())}"],
        "MaskedPaths": list(_MASKED),
        "ReadonlyPaths": list(_READ_ONLY),
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "none"},
        "Init": False,  # its own one waits for orphans too
    }


def _limits(limits: RunLimits, *, own_kernel: bool) -> dict[str, Any]:
    tmp_bytes = min(limits.disk_bytes, limits.memory_bytes // 4)
    processes = limits.processes * (2 if own_kernel else 1)
    processes += _KERNEL_THREADS if own_kernel else _OWN_PROCESSES
    rlimits = {"nofile": limits.open_files, "fsize": limits.disk_bytes, "core": 0}
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "PidsLimit": processes,
        "NanoCpus": int(limits.cpus * 1e9),
        "OomScoreAdj": _OOM_SCORE,
        "ShmSize": _SHM_BYTES,
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={tmp_bytes}"},  # noqa: S108
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value} for name, value in rlimits.items()
        ],
    }
