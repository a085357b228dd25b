"""The stack's own settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.plumbing.settings import BadSettings
from stack.settings import StackSettings, environment, load


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("box.lan", "http://box.lan:8080"),
    ],
)
def test_the_origin_is_what_a_browser_can_open(host: str, origin: str) -> None:
    """An address to listen on is not always one to go to."""
    assert StackSettings(gateway_host=host).origin == origin


def test_the_data_directory_does_not_depend_on_where_a_part_runs() -> None:
    """A relative one is relative to where the stack was started."""
    with environment({"DATA_DIR": "here"}):
        assert load().data_dir == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("name", "port"), [("POCKETBASE_URL", "POCKETBASE_PORT"), ("RUNNER_URL", "PORT")]
)
def test_an_address_of_a_part_elsewhere_is_refused(name: str, port: str) -> None:
    """This stack starts its own, so the setting would do nothing."""
    with (
        environment({name: "http://elsewhere:1"}),
        pytest.raises(BadSettings, match=f"{name} .* set {port} instead"),
    ):
        load()


def test_the_environment_comes_back_as_it_was() -> None:
    """What was set meanwhile is gone, what was hidden is back."""
    before = dict(os.environ)

    with environment({"ONLY": "this"}):
        assert dict(os.environ) == {"ONLY": "this"}

    assert dict(os.environ) == before
