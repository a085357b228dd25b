"""From inside each container, and from inside a sandbox: what it reaches, writes and sees.

Nothing outside this machine is asked: "outside" is a container on a network of our own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.compose import SERVICES, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose import ComposeStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

SECRETS = {
    "pocketbase": {"key_sealing_key", "pb_superuser_password"},
    "gateway": {
        *("key_encryption_keys", "key_sealing_key", "pb_superuser_password", "runner_token"),
    },
    "runner": {"openai_api_key", "runner_token"},
}
REACHES = {
    "pocketbase": {"gateway:8080"},
    "gateway": {"pocketbase:8090", "runner:3001"},
    "runner": {"gateway:8080", "provider:8000"},
}
PORTS = ("pocketbase:8090", "gateway:8080", "runner:3001", "provider:8000")


def connects(stack: ComposeStack, service: str, host: str, port: str) -> bool:
    """Whether a TCP connection from the service's container is taken."""
    script = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{host}/{port}' 2>/dev/null && echo taken"
    return "taken" in stack.inside(service, script)


@pytest.fixture
def outside() -> Iterator[str]:
    """A server beyond this machine's network, as the internet is: in a namespace of its own.

    Its address is one that documentation has, and nobody else.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("an outside of our own takes root and iproute2")
    name, address = f"ocm{os.getpid()}", "198.51.100.2"
    inside = ["ip", "netns", "exec", name]
    steps = (
        f"ip netns add {name}",
        f"ip link add {name}o type veth peer name {name}i netns {name}",
        f"ip addr add 198.51.100.1/30 dev {name}o",
        f"ip link set {name}o up",
        f"ip -n {name} addr add {address}/30 dev {name}i",
        f"ip -n {name} link set {name}i up",
        f"ip -n {name} route add default via 198.51.100.1",
    )
    try:
        for step in steps:
            subprocess.run(step.split(), check=True)
        server = [*inside, sys.executable, "-m", "http.server", "8000", "-d", "/var/empty"]
        with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
            try:
                yield address
            finally:
                it.kill()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.parametrize("service", SERVICES)
def test_it_reaches_only_whom_it_needs(stack: ComposeStack, service: str) -> None:
    """Beside the public origin: PocketBase nobody, the runner no PocketBase."""
    own = {port for port in PORTS if port.startswith(service)}

    reached = {
        port for port in PORTS if port not in own and connects(stack, service, *port.split(":"))
    }

    assert reached == REACHES[service]


def test_pocketbase_has_no_way_out(stack: ComposeStack, outside: str) -> None:
    """The runner, which has one, reaches the same server."""
    eventually(lambda: connects(stack, "runner", outside, "8000"), "there is no outside")

    assert not connects(stack, "pocketbase", outside, "8000")


def test_only_the_gateway_can_be_reached_from_outside(stack: ComposeStack) -> None:
    """The engine publishes one port, on loopback."""
    published = {name: stack.inspect(name)["HostConfig"]["PortBindings"] for name in SERVICES}

    assert not published["pocketbase"]
    assert not published["runner"]
    binding = {"HostIp": "127.0.0.1", "HostPort": stack.environ["GATEWAY_PORT"]}
    assert published["gateway"] == {"8080/tcp": [binding]}


def test_the_runner_answers_nobody_without_its_token(stack: ComposeStack) -> None:
    """Who is on its network still needs the service token."""
    script = (
        "exec 3<>/dev/tcp/runner/3001;"
        " printf 'GET /models HTTP/1.0\\r\\nHost: runner\\r\\n\\r\\n' >&3; head -1 <&3"
    )

    assert " 401 " in stack.inside("gateway", script)


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_an_ordinary_user_without_rights(stack: ComposeStack, service: str) -> None:
    """Not root, no capability, none to gain, a filter on system calls."""
    found = stack.inside(service, "cat /proc/$(cat /proc/1/task/1/children | cut -d' ' -f1)/status")
    status = dict(line.split(":\t", 1) for line in found.splitlines() if ":\t" in line)

    assert status["Uid"].split() == ["10001"] * 4
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


@pytest.mark.parametrize("service", SERVICES)
def test_it_writes_its_data_and_nothing_else(stack: ComposeStack, service: str) -> None:
    """The root is read-only for root too; what can be written is a volume, or gone at restart."""
    probe = "for d in / /app /etc /usr /var /run /home /root; do touch $d/probe 2>&1; done"

    as_user = stack.inside(service, probe)
    as_root = stack.inside(service, probe, user="0")

    assert as_user.count("cannot touch") == as_root.count("cannot touch") == 8
    assert stack.inside(service, "touch /data/probe /tmp/probe && rm /data/probe /tmp/probe") == ""


@pytest.mark.parametrize("service", SERVICES)
def test_it_sees_its_own_secrets_only(stack: ComposeStack, service: str) -> None:
    """As files; no environment and no command line has one."""
    values = {name: stack.secret(name) for name in set().union(*SECRETS.values())}

    seen = set(stack.inside(service, "ls /run/secrets").split())
    shown = stack.inside(service, "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'")

    assert seen == SECRETS[service]
    assert "/run/secrets/" in shown
    assert not [name for name, value in values.items() if value in shown]


def test_the_unmasked_proc_is_out_of_reach(stack: ComposeStack) -> None:
    """It shows the host's processes; only root may enter, and the runner can't become root."""
    assert "Permission denied" in stack.inside("runner", "ls /closed")
    assert "Permission denied" in stack.inside("runner", "cat /closed/proc/1/cmdline")
    assert "Permission denied" in stack.inside("runner", "cd /closed/proc")


def test_a_foreign_user_namespace_does_not_open_it(stack: ComposeStack) -> None:
    """Its root is nobody to files of the real root."""
    script = "unshare --user --map-root-user --mount cat /closed/proc/1/cmdline"

    assert "Permission denied" in stack.inside("runner", script)
