"""Which hosts a sandbox may reach, beside its model: none, unless the operator lists some. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_HTTPS_PORT = 443
_MAX_NAME_CHARS = 253
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_TARGET = re.compile(r"([A-Za-z0-9.-]{1,253}):([0-9]{1,5})")


class BadEgressRule(ValueError):
    """A host in the operator's list is none."""


class EgressDenied(Exception):
    """A sandbox asks for something that is not allowed; the text says what."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host by name, and a port of it."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """The operator's list.

    Attributes:
        exact: Hosts as they stand, each with its port.
        below: Domains whose subdomains are meant (`*.example.com`), each with its port.
    """

    exact: frozenset[Target] = frozenset()
    below: frozenset[Target] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is allowed."""
        return not (self.exact or self.below)

    def target_of(self, authority: str) -> Target:
        """Return what a `CONNECT` for *authority* (`host:port`) asks for, if it is allowed.

        Raises:
            EgressDenied: It is malformed, an address instead of a name, or not on the list.
        """
        match = _TARGET.fullmatch(authority)
        if match is None:
            raise EgressDenied("the target is no host:port")
        target = Target(match[1].lower().rstrip("."), int(match[2]))
        if target in self.exact or self._is_below(target):
            return target
        raise EgressDenied("this host is not on the operator's list")

    def _is_below(self, target: Target) -> bool:
        return any(
            target.port == domain.port and target.host.endswith(f".{domain.host}")
            for domain in self.below
        )


def parse_policy(rules: tuple[str, ...]) -> EgressPolicy:
    """Return the policy of *rules*: `host`, `host:port`, `*.domain` or `*.domain:port`.

    The port is 443 where none is given. Addresses are refused: names can be checked.

    Raises:
        BadEgressRule: A rule is none of these.
    """
    exact: set[Target] = set()
    below: set[Target] = set()
    for rule in rules:
        name, colon, port_text = rule.strip().lower().partition(":")
        wild = name.startswith("*.")
        host = name.removeprefix("*.").rstrip(".")
        port = int(port_text) if port_text.isdecimal() else 0
        if not colon:
            port = _HTTPS_PORT
        if not 0 < port < 1 << 16 or not _is_name(host):
            raise BadEgressRule(f"{rule!r} is no host name, with a port or without")
        (below if wild else exact).add(Target(host, port))
    return EgressPolicy(frozenset(exact), frozenset(below))


def is_public(address: str) -> bool:
    """Whether *address* is one of the internet's, reached as itself.

    Private, loopback, link-local (metadata services), carrier and other special ranges are not,
    nor is an IPv6 address with an IPv4 address inside that isn't.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in _NAT64 or ip in _NAT64_LOCAL:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")


def _is_name(host: str) -> bool:
    """Whether *host* is a name of several labels, and no address in disguise (`1.2.3.4`)."""
    return (
        len(host) <= _MAX_NAME_CHARS
        and _NAME.fullmatch(host) is not None
        and not host.rpartition(".")[2].isdecimal()
    )
