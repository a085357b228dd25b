"""The seccomp filter: as classic BPF, made without libseccomp, and as Docker reads it.

It refuses what a namespace does not contain (vsock, keyrings, io_uring, bpf, perf), what would
make new namespaces, and what lets one process of a tenant take over another (ptrace). Flatpak's
list is its model. Everything else is allowed: a developer's tools need most of Linux.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

# BPF: load a word, jump if equal / at least / any bit set, return.
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data; arguments are 64 bits, little endian: the low word is first.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24

_X32_BIT = 0x40000000
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into somebody's terminal
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_LOW_WORD = 0xFFFFFFFF  # of an argument: the kernel looks at no more where it takes an int
_LIBSECCOMP_NAMES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


@dataclass(frozen=True, slots=True)
class _Architecture:
    audit: int
    column: int
    clone: int
    ioctl: int
    socket: int


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 0, clone=56, ioctl=16, socket=41),
    "aarch64": _Architecture(0xC00000B7, 1, clone=220, ioctl=29, socket=198),
}

# Name → number on x86_64, on aarch64 (None: not there).
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# Answered as if the kernel were too old: programs then fall back on what is allowed.
_UNKNOWN: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435),  # its flags are behind a pointer, where a filter can't look
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
}


class UnsupportedArchitecture(ValueError):
    """There is no filter for this machine."""


def build_filter(machine: str | None = None) -> bytes:
    """Return the filter for *machine* (left out: this one), as `bwrap --seccomp` reads it.

    Raises:
        UnsupportedArchitecture: There is no table of system calls for *machine*.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise UnsupportedArchitecture(machine)
    architecture = _ARCHITECTURES[machine]
    return _Program(architecture).assemble()


def docker_profile(machine: str | None = None) -> dict[str, Any]:
    """Return the same filter as Docker's API takes it, by names of system calls.

    Raises:
        UnsupportedArchitecture: As `build_filter`.
    """
    machine = machine or platform.machine()
    if machine not in _LIBSECCOMP_NAMES:
        raise UnsupportedArchitecture(machine)
    flags = [1 << bit for bit in range(32) if _NAMESPACE_FLAGS >> bit & 1]
    below = [family for family in range(max(_FAMILIES)) if family not in _FAMILIES]
    rules = [
        _rule(_REFUSED, errno.EPERM),
        _rule(_UNKNOWN, errno.ENOSYS),
        *(_rule(["clone"], errno.EPERM, _masked(0, flag, flag)) for flag in flags),
        *(_rule(["ioctl"], errno.EPERM, _masked(1, _LOW_WORD, n)) for n in _TERMINAL_INPUT),
        *(_rule(["socket"], errno.EAFNOSUPPORT, _masked(0, _LOW_WORD, n)) for n in below),
        _rule(["socket"], errno.EAFNOSUPPORT, _compared(0, "SCMP_CMP_GT", max(_FAMILIES))),
    ]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [_LIBSECCOMP_NAMES[machine]],
        "syscalls": rules,
    }


def _rule(names: Iterable[str], error: int, *arguments: dict[str, Any]) -> dict[str, Any]:
    refusal = {"action": "SCMP_ACT_ERRNO", "errnoRet": error}
    return {"names": sorted(names), **refusal, "args": list(arguments)}


def _masked(index: int, mask: int, wanted: int) -> dict[str, Any]:
    return _compared(index, "SCMP_CMP_MASKED_EQ", mask) | {"valueTwo": wanted}


def _compared(index: int, operator: str, value: int) -> dict[str, Any]:
    return {"index": index, "op": operator, "value": value}


class _Program:
    """Instructions in the order they run; jumps count instructions from the next one."""

    def __init__(self, architecture: _Architecture) -> None:
        self._architecture = architecture
        self._instructions: list[bytes] = []

    def assemble(self) -> bytes:
        self._check_architecture()
        for calls, error in ((_REFUSED, errno.EPERM), (_UNKNOWN, errno.ENOSYS)):
            for numbers in calls.values():
                number = numbers[self._architecture.column]
                if number is not None:
                    self._add(_JEQ, number, 0, 1)
                    self._fail(error)
        self._check_clone()
        self._check_ioctl()
        self._check_socket()
        self._add(_RETURN, _ALLOW)
        return b"".join(self._instructions)

    def _check_architecture(self) -> None:
        """A call by another machine's numbers is an attempt to get past the filter."""
        self._add(_LOAD, _ARCHITECTURE)
        self._add(_JEQ, self._architecture.audit, 1, 0)
        self._add(_RETURN, _KILL_PROCESS)
        self._add(_LOAD, _NUMBER)
        if self._architecture.column == 0:
            self._add(_JGE, _X32_BIT, 0, 1)
            self._fail(errno.ENOSYS)

    def _check_clone(self) -> None:
        self._add(_JEQ, self._architecture.clone, 0, 4)
        self._add(_LOAD, _FIRST_ARGUMENT)
        self._add(_JSET, _NAMESPACE_FLAGS, 0, 1)
        self._fail(errno.EPERM)
        self._add(_RETURN, _ALLOW)

    def _check_ioctl(self) -> None:
        self._add(_JEQ, self._architecture.ioctl, 0, 5)
        self._add(_LOAD, _SECOND_ARGUMENT)
        self._add(_JEQ, _TERMINAL_INPUT[0], 1, 0)
        self._add(_JEQ, _TERMINAL_INPUT[1], 0, 1)
        self._fail(errno.EPERM)
        self._add(_RETURN, _ALLOW)

    def _check_socket(self) -> None:
        """Only families that stay in the network namespace: vsock, for one, does not."""
        count = len(_FAMILIES)
        self._add(_JEQ, self._architecture.socket, 0, count + 2)
        self._add(_LOAD, _FIRST_ARGUMENT)
        for position, family in enumerate(_FAMILIES):
            self._add(_JEQ, family, count - position, 0)
        self._fail(errno.EAFNOSUPPORT)

    def _fail(self, error: int) -> None:
        self._add(_RETURN, _ERRNO | error)

    def _add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self._instructions.append(struct.pack("=HBBI", code, if_true, if_false, value))
