"""The profile `edge`: HTTPS in front, and streams still come piece by piece."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import unused_port

from tests.compose.provider import ENDLESS
from tests.support.compose import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose import Caller, ComposeStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

_DOMAIN = "edge.localhost"  # Caddy signs it itself: nobody outside is asked


@pytest.fixture
def edge(stack: ComposeStack) -> Iterator[int]:
    """Caddy's port for HTTPS, on loopback."""
    port = unused_port()
    ports = {"HTTP_PORT": f"127.0.0.1:{unused_port()}", "HTTPS_PORT": f"127.0.0.1:{port}"}
    with_edge = replace(stack, environ={**stack.environ, **ports, "DOMAIN": _DOMAIN})
    with_edge.compose("--profile", "edge", "build", "--quiet", "edge")
    with_edge.compose("--profile", "edge", "up", "--detach", "--no-deps", "edge")
    try:
        eventually(lambda: protocol(port, ["http/1.1"]), "Caddy does not answer")
        yield port
    finally:
        with_edge.compose("--profile", "edge", "rm", "--stop", "--force", "edge")


def connect(port: int, protocols: list[str]) -> ssl.SSLSocket:
    """Return a TLS connection to `_DOMAIN` with one of *protocols*."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    try:
        return context.wrap_socket(plain, server_hostname=_DOMAIN)
    except OSError:
        plain.close()
        raise


def protocol(port: int, protocols: list[str]) -> str | None:
    """Return which of *protocols* is spoken; None where nobody answers."""
    try:
        with connect(port, protocols) as connection:
            return connection.selected_alpn_protocol()
    except OSError:
        return None


def test_it_speaks_http_2(edge: int) -> None:
    """With whoever can."""
    assert protocol(edge, ["h2", "http/1.1"]) == "h2"


def test_a_stream_is_not_held_back(edge: int, anna: Caller) -> None:
    """Its first text is here while there is no end in sight."""
    request = http.client.HTTPConnection(_DOMAIN)
    request.sock = connect(edge, ["http/1.1"])
    headers = {"Authorization": anna.token, "Content-Type": "application/json"}
    try:
        request.request("POST", "/opencode/stream", json.dumps({"prompt": ENDLESS}), headers)
        response = request.getresponse()

        assert response.status == 200
        assert response.read(len("and so on and so on ")) == b"and so on and so on "
    finally:
        request.close()
