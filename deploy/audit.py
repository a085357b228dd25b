"""Look every locked package up in the databases of known vulnerabilities: `make audit`.

It ends with 1 where there are some. Where a database is out of reach, it says so, and lists what
would have been looked up.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LOCKS = ("requirements.lock", "requirements-node.lock")
_TIMEOUT_S = 300


@dataclass(kw_only=True)
class Findings:
    """What is known of a set of packages.

    Attributes:
        vulnerable: "name version: advisory, advisory".
        unknown: "name version", of those that could not be looked up.
        count: How many packages there are.
    """

    vulnerable: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    count: int = 0


def python_findings(report: str) -> Findings:
    """Return what pip-audit's JSON *report* tells."""
    found = Findings()
    for package in json.loads(report)["dependencies"]:
        found.count += 1
        name = f"{package['name']} {package.get('version', '')}".strip()
        if "skip_reason" in package:
            found.unknown.append(name if package.get("version") else package["skip_reason"])
        elif package["vulns"]:
            found.vulnerable.append(f"{name}: {', '.join(v['id'] for v in package['vulns'])}")
    return found


def npm_findings(report: str, lock: dict[str, Any]) -> Findings:
    """Return what npm's JSON *report* on *lock* tells."""
    packages = {
        path.rpartition("node_modules/")[2]: package.get("version", "")
        for path, package in lock["packages"].items()
        if path
    }
    try:
        vulnerable = json.loads(report)["vulnerabilities"]
    except (ValueError, KeyError):
        return Findings(unknown=[f"{n} {v}" for n, v in packages.items()], count=len(packages))
    return Findings(
        vulnerable=[f"{n} {packages.get(n, '')}: {v['severity']}" for n, v in vulnerable.items()],
        count=len(packages),
    )


def summary(kind: str, found: Findings) -> str:
    """Return what a person should know of *found*."""
    lines = [f"{kind}: {found.count} packages, {len(found.vulnerable)} with known vulnerabilities"]
    lines += [f"  {one}" for one in found.vulnerable]
    if found.unknown:
        lines.append(
            f"  {len(found.unknown)} could not be looked up (no database answered for them):"
        )
        lines += [f"    {one}" for one in found.unknown]
    return "\n".join(lines)


def main() -> int:
    """Look everything up; return the exit status."""
    pip_audit = str(ROOT / ".cache" / "audit" / "bin" / "pip-audit")
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    locks = [word for lock in _LOCKS for word in ("--requirement", lock)]
    every = {"Python": python_findings(_run([pip_audit, *options, *locks]))}
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    npm = shutil.which("npm")
    report = _run([npm, "audit", "--json", "--package-lock-only"]) if npm else ""
    every["npm"] = npm_findings(report, lock)
    sys.stdout.write("\n".join(summary(kind, found) for kind, found in every.items()) + "\n")
    return 1 if any(found.vulnerable for found in every.values()) else 0


def _run(command: list[str]) -> str:
    """Return what *command* prints; findings make its exit status no zero."""
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
