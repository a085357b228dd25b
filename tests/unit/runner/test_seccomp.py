"""The filter, run by an interpreter of its own language."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from runner.sandbox.seccomp import UnsupportedArchitecture, build_filter, docker_profile

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


def docker_answer(name: str, *arguments: int) -> int:
    """What Docker's form of the filter answers to a call: an error, or 0 if it is allowed."""
    for rule in docker_profile("x86_64")["syscalls"]:
        if name in rule["names"] and all(matches(one, arguments) for one in rule["args"]):
            return int(rule["errnoRet"])
    return 0


def matches(condition: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    """As libseccomp compares: all 64 bits."""
    value = arguments[condition["index"]]
    if condition["op"] == "SCMP_CMP_GT":
        return bool(value > condition["value"])
    assert condition["op"] == "SCMP_CMP_MASKED_EQ"
    return bool(value & condition["value"] == condition["valueTwo"])


@pytest.mark.parametrize("above", [0, 1 << 32], ids=["plain", "garbage above the int"])
def test_dockers_form_looks_at_arguments_too(above: int) -> None:
    """The kernel takes 32 bits where a filter sees 64: what stands above is no way past."""
    allowed = {family for family in range(64) if not docker_answer("socket", above | family)}
    assert allowed == (set() if above else {1, 2, 10, 16})
    assert docker_answer("ioctl", 0, above | 0x5412) == errno.EPERM
    assert docker_answer("ioctl", 0, above | 0x5401) == 0
    assert docker_answer("clone", above | 0x10000000 | 17) == errno.EPERM
    assert docker_answer("clone", above | 17) == 0


def test_dockers_form_refuses_the_same_calls() -> None:
    """With the same errors."""
    assert docker_answer("ptrace") == docker_answer("mount") == errno.EPERM
    assert docker_answer("io_uring_setup") == docker_answer("clone3") == errno.ENOSYS
    assert docker_answer("read") == 0
    with pytest.raises(UnsupportedArchitecture):
        docker_profile("vax")
