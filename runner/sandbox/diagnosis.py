"""Why a sandbox could not be made, in words that say what to change."""

from __future__ import annotations

from pathlib import Path

_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
# Switch below /proc/sys → value that forbids → what to do.
_SWITCHES = (
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "user namespaces are switched off: sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "user/max_user_namespaces",
        "0",
        "user namespaces are switched off: sysctl user.max_user_namespaces=15000",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        (
            "AppArmor forbids user namespaces: give bwrap a profile with 'userns,', or"
            " sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        ),
    ),
)


def explain(
    problem: str,
    *,
    root: bool,
    switches: Path = Path("/proc/sys"),
    container: bool | None = None,
) -> str:
    """Return *problem*, what `launch` or `bwrap` said, with the setting that causes it.

    Args:
        problem: Their words; may be empty.
        root: Whether the runner is root.
        switches: Where the kernel's switches are read.
        container: Whether the runner is in a container; left out: look.
    """
    words = problem.strip() or "bwrap ended without a word"
    if container is None:
        container = any(mark.exists() for mark in _CONTAINER_MARKS)
    for name, forbidding, advice in _SWITCHES:
        if _read(switches / name) == forbidding:
            return f"{words}: {advice}"
    if advice := _advice(words, root=root, container=container):
        return f"{words}: {advice}"
    return words


def _advice(words: str, *, root: bool, container: bool) -> str:
    if "mount proc" in words or words.startswith("/proc:"):
        return (
            "the container hides parts of /proc: mount a volume of the type proc where only root"
            " can enter (compose.yaml has one), or security_opt systempaths=unconfined"
        )
    if "ermi" not in words:  # "Permission denied", "Operation not permitted", "No permissions"
        return ""
    if root and ("namespace" in words or "mount" in words or "uid map" in words):
        return "this root lacks CAP_SYS_ADMIN: start the runner as an ordinary user"
    if container:
        return (
            "the container forbids namespaces: security_opt seccomp=deploy/seccomp.json and,"
            " with AppArmor, apparmor=unconfined or a profile of its own (docs/operations.md)"
        )
    return "the kernel or a security module forbids unprivileged user namespaces"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
