"""Print what an image is made of, as CycloneDX: Debian's, Python's and npm's packages.

Usage: sbom.py --name IMAGE [--dpkg STATUS_FILE] [--python SITE_PACKAGES] [--npm NODE_MODULES]

The same packages make the same text: no time, no random number.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    Package = tuple[str, str, str]  # kind, as package URLs name it; name; version


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="sbom.py")
    parser.add_argument("--name", required=True)
    parser.add_argument("--dpkg", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--npm", type=Path)
    chosen = parser.parse_args()
    found: set[Package] = set()
    if chosen.dpkg:
        found |= set(debian(chosen.dpkg.read_text(encoding="utf-8")))
    if chosen.python:
        found |= {("pypi", d.name, d.version) for d in distributions(path=[str(chosen.python)])}
    if chosen.npm:
        found |= set(npm(chosen.npm))
    json.dump(document(chosen.name, sorted(found)), sys.stdout, indent=1)


def debian(status: str) -> Iterator[Package]:
    """Yield what dpkg's status file lists as installed."""
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            yield "deb/debian", fields["Package"], fields["Version"]


def npm(node_modules: Path) -> Iterator[Package]:
    """Yield the packages in *node_modules*."""
    for manifest in node_modules.glob("*/package.json"):
        package = json.loads(manifest.read_text(encoding="utf-8"))
        yield "npm", package["name"], package["version"]


def document(name: str, packages: list[Package]) -> dict[str, object]:
    """Return the list as CycloneDX has it."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": f"opencode-multiuser/{name}"}},
        "components": [
            {
                "type": "library",
                "name": package,
                "version": version,
                "purl": f"pkg:{kind}/{quote(package, safe='')}@{quote(version, safe='')}",
            }
            for kind, package, version in packages
        ],
    }


if __name__ == "__main__":
    main()
