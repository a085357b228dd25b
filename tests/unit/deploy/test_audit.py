"""What `make audit` makes of the reports, also of none."""

from __future__ import annotations

import json

from deploy.audit import npm_findings, python_findings, summary

_LOCK = {"packages": {"": {}, "node_modules/opencode-ai": {"version": "1.18.33"}}}


def test_vulnerable_python_packages_are_named() -> None:
    """With the advisory to look at."""
    report = {
        "dependencies": [
            {"name": "one", "version": "1.0", "vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-2"}]},
            {"name": "two", "version": "2.0", "vulns": []},
        ]
    }

    found = python_findings(json.dumps(report))

    assert found.vulnerable == ["one 1.0: PYSEC-1, GHSA-2"]
    assert (found.unknown, found.count) == ([], 2)


def test_what_was_not_looked_up_is_not_called_sound() -> None:
    """Neither a package that the database does not know, nor an answer that is none."""
    skipped = {"name": "one", "skip_reason": "Dependency not found: one (1.0)"}

    python = python_findings(json.dumps({"dependencies": [skipped]}))
    npm = npm_findings('{"message": "405 Method Not Allowed"}', _LOCK)

    assert python.unknown == ["Dependency not found: one (1.0)"]
    assert npm.unknown == ["opencode-ai 1.18.33"]
    assert "1 could not be looked up" in summary("npm", npm)


def test_vulnerable_npm_packages_are_named() -> None:
    """With their severity."""
    report = {"vulnerabilities": {"opencode-ai": {"severity": "high"}}}

    found = npm_findings(json.dumps(report), _LOCK)

    assert found.vulnerable == ["opencode-ai 1.18.33: high"]
    assert "1 packages, 1 with known vulnerabilities" in summary("npm", found)
