"""A sandbox has one way out: its own door."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.attacker import Attacker


def test_door_is_its_own(attacker: Attacker) -> None:
    """Every sandbox finds the same address, and behind it the listener of its own run."""
    outcome = attacker.python(
        'print(socket.create_connection(("127.0.0.1", 4141)).recv(99).decode())'
    )

    assert outcome.lines == ["own"]


def test_only_loopback_and_no_route(attacker: Attacker) -> None:
    """There is nothing to send a packet through."""
    outcome = attacker.python(
        """
print([name for _, name in socket.if_nameindex()])
print(len(open("/proc/net/route").readlines()) - 1)
print({line.split()[-1] for line in open("/proc/net/ipv6_route")})
"""
    )

    assert outcome.lines == ["['lo']", "0", "{'lo'}"]


def test_host_services_do_not_answer(attacker: Attacker) -> None:
    """Loopback of the host, its unix sockets and Docker's are out of reach."""
    outcome = attacker.python(
        r"""
attempt(socket.create_connection, ("127.0.0.1", {port}))
for name in ("\0{abstract}", "{base}/outside/socket", "/run/docker.sock",
             "/var/run/docker.sock"):
    attempt(socket.socket(socket.AF_UNIX).connect, name)
"""
    )

    assert outcome.lines == ["ECONNREFUSED", "ECONNREFUSED", "ENOENT", "ENOENT", "ENOENT"]


def test_other_families_are_refused(attacker: Attacker) -> None:
    """Families a network namespace doesn't hold, vsock above all, can't be opened."""
    outcome = attacker.python(
        """
for family in (socket.AF_VSOCK, socket.AF_PACKET, socket.AF_ALG, socket.AF_BLUETOOTH, 44):
    attempt(socket.socket, family, socket.SOCK_STREAM)
attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
"""
    )

    assert outcome.lines == ["EAFNOSUPPORT"] * 5 + ["EPERM"]


def test_network_can_not_be_configured(attacker: Attacker) -> None:
    """The namespace belongs to somebody outside: no interface, address or route is added."""
    outcome = attacker.python(
        """
s = socket.socket()
attempt(fcntl.ioctl, s, 0x8914, struct.pack("16sH14s", b"lo", 0, b""))  # lo down
attempt(fcntl.ioctl, s, 0x890B, bytes(120))                             # add a route
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
# RTM_NEWLINK, request | ack | create | exclusive, a dummy interface
link = struct.pack("=HH", 4 + 12, 18) + struct.pack("=HH", 4 + 5, 1) + b"dummy" + bytes(3)
body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + link
n.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
print(errno.errorcode[-struct.unpack("=i", n.recv(4096)[16:20])[0]])
"""
    )

    assert outcome.lines == ["EPERM", "EPERM", "EPERM"]
