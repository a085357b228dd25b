"""The filter, run by an interpreter of its own language."""

from __future__ import annotations

import errno
import struct

import pytest

from runner.sandbox.seccomp import UnsupportedArchitecture, build_filter

ALLOW = 0x7FFF0000
KILL = 0x80000000
X86_64, AARCH64 = 0xC000003E, 0xC00000B7


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run *program* on one system call as the kernel does; return its verdict."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *padded)
    instructions = list(struct.iter_unpack("=HBBI", program))
    at = word = 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (word,) = struct.unpack_from("=I", data, value)
            continue
        tests = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}
        at += if_true if tests[code] else if_false


def refused(error: int) -> int:
    return 0x00050000 | error


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        pytest.param(0, (), ALLOW, id="read"),
        pytest.param(59, (), ALLOW, id="execve"),
        pytest.param(101, (), refused(errno.EPERM), id="ptrace"),
        pytest.param(165, (), refused(errno.EPERM), id="mount"),
        pytest.param(272, (), refused(errno.EPERM), id="unshare"),
        pytest.param(250, (), refused(errno.EPERM), id="keyctl"),
        pytest.param(425, (), refused(errno.ENOSYS), id="io_uring_setup"),
        pytest.param(435, (), refused(errno.ENOSYS), id="clone3"),
        pytest.param(56, (0x01200011,), ALLOW, id="fork"),
        pytest.param(56, (0x003D0F00,), ALLOW, id="thread"),
        pytest.param(56, (0x10000011,), refused(errno.EPERM), id="clone-user-namespace"),
        pytest.param(56, (0x02000011,), refused(errno.EPERM), id="clone-cgroup-namespace"),
        pytest.param(16, (0, 0x5401), ALLOW, id="terminal-settings"),
        pytest.param(16, (0, 0x5412), refused(errno.EPERM), id="TIOCSTI"),
        pytest.param(16, (0, 0x541C), refused(errno.EPERM), id="TIOCLINUX"),
        pytest.param(16, (0, 0xFF_0000_5412), refused(errno.EPERM), id="TIOCSTI-high-bits"),
        pytest.param(41, (1,), ALLOW, id="unix"),
        pytest.param(41, (2,), ALLOW, id="inet"),
        pytest.param(41, (10,), ALLOW, id="inet6"),
        pytest.param(41, (16,), ALLOW, id="netlink"),
        pytest.param(41, (40,), refused(errno.EAFNOSUPPORT), id="vsock"),
        pytest.param(41, (17,), refused(errno.EAFNOSUPPORT), id="packet"),
        pytest.param(0x40000000, (), refused(errno.ENOSYS), id="x32"),
    ],
)
def test_calls_on_x86_64(number: int, arguments: tuple[int, ...], expected: int) -> None:
    """What a namespace doesn't contain is refused, ordinary work is not."""
    assert verdict(build_filter("x86_64"), X86_64, number, *arguments) == expected


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        pytest.param(63, (), ALLOW, id="read"),
        pytest.param(117, (), refused(errno.EPERM), id="ptrace"),
        pytest.param(40, (), refused(errno.EPERM), id="mount"),
        pytest.param(220, (0x10000011,), refused(errno.EPERM), id="clone-user-namespace"),
        pytest.param(198, (40,), refused(errno.EAFNOSUPPORT), id="vsock"),
        pytest.param(29, (0, 0x5412), refused(errno.EPERM), id="TIOCSTI"),
    ],
)
def test_calls_on_aarch64(number: int, arguments: tuple[int, ...], expected: int) -> None:
    """The other architecture has the same rules under other numbers."""
    assert verdict(build_filter("aarch64"), AARCH64, number, *arguments) == expected


def test_calls_by_another_architectures_numbers_kill() -> None:
    """Numbers mean something else there, so such a call would get past every rule."""
    assert verdict(build_filter("x86_64"), 0x40000003, 0) == KILL


def test_machine_without_a_table_is_refused() -> None:
    """No filter is no sandbox."""
    with pytest.raises(UnsupportedArchitecture):
        build_filter("riscv64")
