"""The compose files, read as data: what must not get lost in a change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import gateway.settings
import runner.settings
from stack.generate import GENERATED

if TYPE_CHECKING:
    from runner.plumbing.settings import ServiceSettings

ROOT = Path(__file__).parents[3]
SERVICES = ("pocketbase", "gateway", "runner")
OF_THE_IMAGE = {
    "gateway": {"DATA_DIR", "GATEWAY_HOST", "GATEWAY_PORT", "LOG_FORMAT"},
    "runner": {"DATA_DIR", "LOG_FORMAT", "OPENCODE_BIN", "PORT", "RUNNER_HOST"},
}
OF_THE_DOCKER_BACKEND = {"RUNNER_SPAWNER_SOCKET"}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """compose.yaml."""
    return read("compose.yaml")


@pytest.fixture(scope="module")
def one_host() -> dict[str, Any]:
    """compose.override.yaml."""
    return read("compose.override.yaml")


@pytest.mark.parametrize(
    ("service", "model"),
    [("gateway", gateway.settings.Settings), ("runner", runner.settings.Settings)],
)
def test_every_setting_reaches_its_service(
    base: dict[str, Any], service: str, model: type[ServiceSettings]
) -> None:
    """What README's table lists works in `.env` too; secrets come as files."""
    known = {name.upper() for name in model.model_fields}
    secrets = known & {*GENERATED, "OPENAI_API_KEY"}
    files = {f"{name}_FILE" for name in secrets}

    given = set(base["services"][service]["environment"])

    expected = (known - secrets - OF_THE_IMAGE[service] - OF_THE_DOCKER_BACKEND) | files
    assert given == expected, f"list it in compose.yaml, below the {service}'s environment"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_locked_down(
    base: dict[str, Any], one_host: dict[str, Any], service: str
) -> None:
    """Nothing to write but its volumes, no capability, nothing to gain, logs that rotate."""
    shared, here = base["services"][service], one_host["services"][service]

    assert shared["read_only"] is True
    assert shared["init"] is True
    assert shared["cap_drop"] == ["ALL"]
    assert "cap_add" not in shared | here
    assert "privileged" not in shared | here
    assert "no-new-privileges:true" in here["security_opt"]
    assert shared["logging"]["options"].keys() == {"max-size", "max-file"}
    assert {"mem_limit", "pids_limit", "restart"} <= here.keys()


def test_only_the_gateway_is_published(base: dict[str, Any], one_host: dict[str, Any]) -> None:
    """By default on loopback: the way in from elsewhere is TLS."""
    published = {
        name: service.get("ports")
        for file in (base, one_host)
        for name, service in file["services"].items()
        if service.get("ports") and "profiles" not in service  # edge, when asked for
    }

    assert published == {"gateway": ["${GATEWAY_HOST:-127.0.0.1}:${GATEWAY_PORT:-8080}:8080"]}


def test_networks_keep_apart_who_need_not_meet(base: dict[str, Any]) -> None:
    """PocketBase has no way out, and the runner does not reach it."""
    of = {name: set(base["services"][name]["networks"]) for name in SERVICES}
    internal = {name for name, network in base["networks"].items() if network.get("internal")}

    assert of["pocketbase"] <= internal
    assert not of["pocketbase"] & of["runner"]
    assert of["gateway"] & of["runner"] <= internal
    assert of["gateway"] & of["pocketbase"] <= internal


def test_secrets_are_files_and_each_is_made(base: dict[str, Any]) -> None:
    """`make secrets` makes every file that the stack wants."""
    assert set(base["secrets"]) == {
        *(name.lower() for name in GENERATED if name != "DEMO_USER_PASSWORD"),
        "openai_api_key",
    }
    for service in SERVICES:
        wanted = base["services"][service]["secrets"]
        environment = base["services"][service]["environment"]
        assert {f"/run/secrets/{name}" for name in wanted} == {
            value for name, value in environment.items() if name.endswith("_FILE")
        }
