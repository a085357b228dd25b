"""What the operator's list allows, and what no list can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.egress.policy import BadEgressRule, EgressDenied, Target, is_public, parse_policy

POLICY = parse_policy(("pypi.example.org", "git.example.org:8443", "*.cdn.example.org"))


@pytest.mark.parametrize(
    "authority",
    [
        "pypi.example.org:443",
        "PyPI.Example.org:443",
        "pypi.example.org.:443",
        "git.example.org:8443",
        "a.cdn.example.org:443",
        "a.b.cdn.example.org:443",
    ],
)
def test_listed_hosts_are_allowed(authority: str) -> None:
    """By name and port; a star stands for what is below a domain."""
    host, _, port = authority.lower().partition(":")

    assert POLICY.target_of(authority) == Target(host.rstrip("."), int(port))


@pytest.mark.parametrize(
    "authority",
    [
        "pypi.example.org:80",
        "git.example.org:443",
        "cdn.example.org:443",
        "evilcdn.example.org:443",
        "pypi.example.org.evil.test:443",
        "pypi.example.org",
        "pypi.example.org:443:443",
        "pypi.example.org:0443x",
        "127.0.0.1:443",
        "[::1]:443",
        "user@pypi.example.org:443",
        "pypi.example.org\r\nX: y:443",
        "",
    ],
)
def test_everything_else_is_denied(authority: str) -> None:
    """Other ports, look-alikes, addresses, malformed targets."""
    with pytest.raises(EgressDenied):
        POLICY.target_of(authority)


@given(st.text(max_size=60))
def test_no_text_gets_past_the_list(authority: str) -> None:
    """Whatever is asked for is denied or on the list."""
    try:
        target = POLICY.target_of(authority)
    except EgressDenied:
        return
    assert target in POLICY.exact or target.host.endswith(".cdn.example.org")


def test_an_empty_list_allows_nothing() -> None:
    """The default."""
    assert parse_policy(()).is_empty


@pytest.mark.parametrize(
    "rule", ["1.2.3.4", "localhost", "*", "*.", "a b.example", "x.example:0", "x.example:99999", ""]
)
def test_what_is_no_host_is_refused_at_start(rule: str) -> None:
    """Addresses too: only a name can be checked against rebinding."""
    with pytest.raises(BadEgressRule):
        parse_policy((rule,))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.0.1", "169.254.169.254"),
        *("172.16.0.1", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
        *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "ff02::1", "2001:db8::1"),
        *("not-an-address", ""),
    ],
)
def test_special_addresses_are_not_public(address: str) -> None:
    """Loopback, private, link-local, metadata, and IPv4 in IPv6's clothes."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_the_internets_addresses_are_public(address: str) -> None:
    """Else nothing listed could be reached."""
    assert is_public(address)
