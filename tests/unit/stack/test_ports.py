"""A taken port is one clear line."""

from __future__ import annotations

import socket

import pytest

from runner.plumbing.settings import BadSettings
from stack.ports import settle_ports
from stack.settings import StackSettings

ANY = StackSettings(gateway_port=0, pocketbase_port=0, port=0)


def test_zero_means_any_free_port() -> None:
    """Three different ones, and each can be listened on."""
    settled = settle_ports(ANY)

    ports = {settled.gateway_port, settled.pocketbase_port, settled.port}
    assert len(ports) == 3
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("field", ["gateway_port", "pocketbase_port", "port"])
def test_a_taken_port_is_named_with_the_setting_to_change(field: str) -> None:
    """Both are what the operator needs to know."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]

        with pytest.raises(BadSettings, match=f"port {taken} is taken.*{field.upper()} to"):
            settle_ports(ANY.model_copy(update={field: taken}))


def test_two_parts_on_one_port_are_refused() -> None:
    """Each alone would be free."""
    free = settle_ports(ANY).gateway_port

    with pytest.raises(BadSettings, match="GATEWAY_PORT and PORT are both"):
        settle_ports(ANY.model_copy(update={"gateway_port": free, "port": free}))


def test_a_host_that_is_not_of_this_machine_is_refused() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    with pytest.raises(BadSettings, match=r"GATEWAY_HOST.*not an address of this machine"):
        settle_ports(ANY.model_copy(update={"gateway_host": "192.0.2.1"}))
