"""What an image is made of, as CycloneDX."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy import sbom

if TYPE_CHECKING:
    from pathlib import Path

_STATUS = """\
Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u10
Description: GNU C Library
 Status: in here means nothing

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""


def test_only_installed_debian_packages_count() -> None:
    """What was removed but not purged still stands in dpkg's file."""
    assert list(sbom.debian(_STATUS)) == [("deb/debian", "libc6", "2.36-9+deb12u10")]


def test_npm_packages_are_found(tmp_path: Path) -> None:
    """A package's manifest says its name and version."""
    (tmp_path / "opencode-ai").mkdir()
    manifest = {"name": "opencode-ai", "version": "1.18.33"}
    (tmp_path / "opencode-ai" / "package.json").write_text(json.dumps(manifest))

    assert list(sbom.npm(tmp_path)) == [("npm", "opencode-ai", "1.18.33")]


def test_a_component_has_its_package_url() -> None:
    """Scanners look packages up by it; a version's `+` is escaped."""
    document = sbom.document("gateway", [("deb/debian", "libc6", "2.36-9+deb12u10")])

    assert document["components"] == [
        {
            "type": "library",
            "name": "libc6",
            "version": "2.36-9+deb12u10",
            "purl": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10",
        }
    ]
