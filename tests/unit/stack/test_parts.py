"""Which part gets what: each only what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings as GatewaySettings
from runner.settings import Settings as RunnerSettings
from stack import parts
from stack.secrets import NAMES, Secret
from stack.settings import StackSettings

SETTINGS = StackSettings(data_dir=Path("/data"), gateway_port=1, pocketbase_port=2, port=3)
SECRETS = {name: Secret(Path(f"/dev/fd/{fd}"), fd=fd) for fd, name in enumerate(sorted(NAMES), 7)}
BINARY = Path("/bin/pocketbase")
ENVIRON = {
    **dict.fromkeys(NAMES, "in the clear"),
    "PATH": "/usr/bin",
    "HOME": "/home/anne",
    "AWS_SECRET_ACCESS_KEY": "somebody's",
    "HTTPS_PROXY": "http://user:password@proxy",
    "GATEWAY_TYPO": "1",
    "RUNNER_TYPO": "2",
    "MODELS": "local/small",
    "LOG_LEVEL": "debug",
    "DOCKER_HOST": "unix:///run/docker.sock",
    "SPAWNER_TYPO": "3",
}


@pytest.fixture(params=["pocketbase", "set-up", "runner", "gateway", "spawner"])
def part(request: pytest.FixtureRequest) -> parts.Part:
    """Each part in turn."""
    made = {
        "pocketbase": lambda: parts.pocketbase(SETTINGS, SECRETS, ENVIRON, BINARY),
        "set-up": lambda: parts.pocketbase_set_up(SETTINGS, SECRETS, ENVIRON, BINARY),
        "runner": lambda: parts.runner(SETTINGS, SECRETS, ENVIRON),
        "gateway": lambda: parts.gateway(SETTINGS, SECRETS, ENVIRON),
        "spawner": lambda: parts.spawner(SETTINGS, ENVIRON),
    }
    return made[str(request.param)]()


def test_no_part_gets_a_secret_in_its_environment_or_command_line(part: parts.Part) -> None:
    """Others on the machine can read both."""
    assert "in the clear" not in part.env.values()
    assert "in the clear" not in part.command


def test_no_part_gets_what_it_does_not_know(part: parts.Part) -> None:
    """The operator's other variables are none of its business."""
    assert "AWS_SECRET_ACCESS_KEY" not in part.env
    assert part.env["HOME"] == "/home/anne"


def test_a_part_inherits_the_descriptors_of_its_own_secrets_only(part: parts.Part) -> None:
    """What a part can't open, it can't lose."""
    named = {name.removesuffix("_FILE") for name in part.env if name.endswith("_FILE")} & NAMES

    assert set(part.pass_fds) == {SECRETS[name].fd for name in named}


@pytest.mark.parametrize(
    ("made", "secrets"),
    [
        pytest.param(
            parts.runner(SETTINGS, SECRETS, ENVIRON), {"RUNNER_TOKEN", "OPENAI_API_KEY"}, id="run"
        ),
        pytest.param(
            parts.gateway(SETTINGS, SECRETS, ENVIRON),
            {"RUNNER_TOKEN", "PB_SUPERUSER_PASSWORD", "KEY_ENCRYPTION_KEYS", "KEY_SEALING_KEY"},
            id="gateway",
        ),
        pytest.param(parts.spawner(SETTINGS, ENVIRON), set(), id="spawner"),
        pytest.param(
            parts.pocketbase(SETTINGS, SECRETS, ENVIRON, BINARY), {"KEY_SEALING_KEY"}, id="pb"
        ),
    ],
)
def test_each_part_knows_exactly_its_own_secrets(made: parts.Part, secrets: set[str]) -> None:
    """The gateway never sees the operator's key; PocketBase sees nobody's."""
    named = {name.removesuffix("_FILE") for name in made.env if name.endswith("_FILE")} & NAMES

    assert named == secrets


def test_every_secret_setting_of_the_services_is_known_as_one() -> None:
    """A new one would otherwise travel in the environment."""
    fields = {**GatewaySettings.model_fields, **RunnerSettings.model_fields}
    secret = {name.upper() for name, field in fields.items() if "Secret" in str(field.annotation)}

    assert secret <= NAMES


def test_settings_reach_the_service_they_are_for() -> None:
    """Typos too: the service refuses them."""
    runner = parts.runner(SETTINGS, SECRETS, ENVIRON).env
    gateway = parts.gateway(SETTINGS, SECRETS, ENVIRON).env
    spawner = parts.spawner(SETTINGS, ENVIRON).env

    assert {"LOG_LEVEL", "SPAWNER_TYPO", "DOCKER_HOST"} <= set(spawner)
    assert not {"MODELS", "RUNNER_TYPO", "HTTPS_PROXY", "DATA_DIR"} & set(spawner)
    assert "DOCKER_HOST" not in {**runner, **gateway}
    assert {"MODELS", "LOG_LEVEL", "RUNNER_TYPO", "HTTPS_PROXY"} <= set(runner)
    assert {"LOG_LEVEL", "GATEWAY_TYPO"} <= set(gateway)
    assert not {"GATEWAY_TYPO"} & set(runner)
    assert not {"MODELS", "RUNNER_TYPO", "HTTPS_PROXY"} & set(gateway)


def test_addresses_follow_from_the_ports() -> None:
    """Whoever changes one port changes it everywhere."""
    gateway = parts.gateway(SETTINGS, SECRETS, ENVIRON).env
    runner = parts.runner(SETTINGS, SECRETS, ENVIRON).env

    assert gateway["POCKETBASE_URL"] == "http://127.0.0.1:2"
    assert gateway["RUNNER_URL"] == "http://127.0.0.1:3"
    assert (runner["PORT"], runner["DATA_DIR"]) == ("3", "/data")


def test_runner_and_spawner_meet_where_both_look() -> None:
    """Only where sandboxes are containers, and nobody else starts them."""
    asked = SETTINGS.model_copy(update={"runner_sandbox": "docker"})
    elsewhere = asked.model_copy(update={"runner_spawner_socket": Path("/run/spawner")})

    assert not SETTINGS.starts_spawner
    assert not elsewhere.starts_spawner
    assert asked.starts_spawner
    spawner = parts.spawner(asked, ENVIRON).env
    runner = parts.runner(asked, SECRETS, ENVIRON).env
    assert spawner["SPAWNER_SOCKET"] == runner["RUNNER_SPAWNER_SOCKET"]
    assert spawner["SPAWNER_RUNS_DIR"] == "/data/sandboxes"
