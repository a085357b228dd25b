"""Ports are checked before anything starts, so that a taken one is one clear line."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from runner.plumbing.settings import BadSettings

if TYPE_CHECKING:
    from stack.settings import StackSettings


def settle_ports(settings: StackSettings) -> StackSettings:
    """Return *settings* with every 0 replaced by a port that is free now.

    Raises:
        BadSettings: A port is taken, not allowed, or wanted twice; the text names the setting.
    """
    wanted = {
        "gateway_port": ("GATEWAY_HOST", settings.gateway_host),
        "pocketbase_port": ("POCKETBASE_PORT", "127.0.0.1"),
        "port": ("RUNNER_HOST", settings.runner_host),
    }
    settled: dict[str, int] = {}
    for field, (host_name, host) in wanted.items():
        name = field.upper()
        port = _bindable(name, getattr(settings, field), host_name, host, set(settled.values()))
        for other, taken in settled.items():
            if port == taken:
                raise BadSettings(f"{other.upper()} and {name} are both {port}; change one")
        settled[field] = port
    return settings.model_copy(update=settled)


def _bindable(name: str, port: int, host_name: str, host: str, avoid: set[int]) -> int:
    """Return *port*, or a free one for 0, after having listened on it for a moment."""
    host = host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            found = int(probe.getsockname()[1])
            if port == 0 and found in avoid:  # the kernel may offer a port twice
                return _bindable(name, port, host_name, host, avoid)
            return found
    except socket.gaierror as exc:
        raise BadSettings(f"{host_name}: {host!r} is not an address of this machine") from exc
    except OSError as exc:
        raise BadSettings(_explained(exc, name, port, host_name, host)) from exc


def _explained(exc: OSError, name: str, port: int, host_name: str, host: str) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"port {port} is taken: end what listens there, or set {name} to another port"
    if exc.errno == errno.EACCES:
        return f"port {port} needs more rights than yours: set {name} to one above 1023"
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"{host_name}: {host!r} is not an address of this machine"
    return f"port {port} can't be used ({exc.strerror}): set {name} to another port"
