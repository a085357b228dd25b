"""What a tenant may not become, and may not do to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.attacker import Attacker


def test_nothing_outside_can_be_written(attacker: Attacker) -> None:
    """Writable are HOME, workspace, /tmp and /dev/shm, and nothing else."""
    outcome = attacker.run(
        "for d in / /usr /usr/bin /usr/local /etc /opt /opt/bin /home /dev /run /var; do"
        " touch $d/x 2>/dev/null && echo $d; done;"
        "for d in ~ /workspace /tmp /dev/shm; do touch $d/x && echo $d; done;"
        "find / -xdev -type d -writable 2>/dev/null | grep -v -e ^/proc"
    )

    assert outcome.lines[:4] == ["/home/user", "/workspace", "/tmp", "/dev/shm"]
    # Its root folder belongs to it, on a file system that is read-only.


def test_shared_programs_can_not_be_changed(attacker: Attacker) -> None:
    """Programs of the host are shown read-only, to their owner too."""
    outcome = attacker.python(
        """
for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
    attempt(os.open, "{program}", flags)
    attempt(os.open, "/usr/bin/env", flags)
attempt(os.chmod, "{program}", 0o777)
attempt(os.unlink, "{program}")
attempt(os.open, "/etc/passwd", os.O_WRONLY)
attempt(os.open, "/proc/sys/kernel/core_pattern", os.O_WRONLY)
"""
    )

    assert len(outcome.lines) == 8
    assert set(outcome.lines) <= {"EROFS", "EACCES", "EBUSY", "EPERM"}


def test_no_mount_of_any_kind(attacker: Attacker) -> None:
    """Old and new system calls for mounts are closed."""
    outcome = attacker.python(
        """
outcome(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
outcome(libc.mount(b"none", b"/", None, ctypes.c_ulong(32), None))  # remount writable
outcome(libc.umount2(b"/usr/local", 2))
call((155, 41), b"/tmp", b"/tmp")                    # pivot_root
call((428, 428), -100, b"/", 1)                      # open_tree
call((430, 430), b"tmpfs", 0)                        # fsopen
attempt(os.chroot, "/tmp")
"""
    )

    assert outcome.lines == ["EPERM"] * 4 + ["ENOSYS"] * 2 + ["EPERM"]


def test_no_further_namespaces(attacker: Attacker) -> None:
    """Without a new user namespace nobody gets capabilities back."""
    outcome = attacker.python(
        """
for flag in (0x10000000, 0x00020000, 0x40000000, 0x20000000):
    outcome(libc.unshare(flag))
call((56, 220), 0x10000000 | 17, 0, 0, 0, 0)         # clone
call((435, 435), bytes(88), 88)                      # clone3
outcome(libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0))
"""
    )

    assert outcome.lines == ["EPERM"] * 5 + ["ENOSYS", "EPERM"]


def test_no_namespace_even_without_the_filter(attacker: Attacker) -> None:
    """The kernel's own switch forbids user namespaces too, should the filter miss a call."""
    outcome = attacker.run("cat /proc/sys/user/max_user_namespaces; unshare -U true; echo $?")

    assert outcome.lines[-1] != "0"


def test_no_privileges_to_gain(attacker: Attacker) -> None:
    """No capability is left, none can be gained, no set-user-id program works."""
    outcome = attacker.run(
        "grep -E 'Cap(Eff|Prm|Bnd|Amb)|NoNewPrivs|^Seccomp:' /proc/self/status | cut -f2;"
        "grep -v -e nosuid /proc/mounts | wc -l"
    )
    switched = attacker.python("attempt(os.setuid, 0); attempt(os.setgid, 0); print(os.getuid())")

    assert outcome.lines[:-1] == ["0000000000000000"] * 4 + ["1", "2"]
    # A container's image may be mounted without nosuid: "no new privileges" means the same.
    assert outcome.lines[-1] == "0" or attacker.who == "docker"
    assert switched.lines[-1] != "0"
    assert "done" not in switched.lines


def test_no_power_over_other_processes(attacker: Attacker) -> None:
    """Neither the runner nor the sandbox's own first process can be traced or stopped."""
    outcome = attacker.python(
        """
outcome(libc.ptrace(16, 1, 0, 0))
call((310, 270), 1, None, 0, None, 0, 0)             # process_vm_readv
attempt(os.kill, {pid}, 9)
attempt(os.kill, {pid}, 0)
attempt(os.kill, -{pid}, 9)
"""
    )

    assert outcome.lines == ["EPERM", "EPERM", "ESRCH", "ESRCH", "ESRCH"]


def test_killing_everything_kills_only_itself(attacker: Attacker) -> None:
    """`kill -9 -1` reaches the sandbox's own processes."""
    attacker.run("kill -9 -1; echo survived")


def test_no_dangerous_kernel_interfaces(attacker: Attacker) -> None:
    """What most kernel exploits begin with is closed."""
    outcome = attacker.python(
        """
call((321, 280), 0, bytes(128), 128)                 # bpf
call((298, 241), bytes(128), 0, -1, -1, 0)           # perf_event_open
call((323, 282), 0)                                  # userfaultfd
call((304, 265), -100, None, 0)                      # open_by_handle_at
call((425, 425), 8, bytes(120))                      # io_uring_setup
call((246, 104), 0, 0, None, 0)                      # kexec_load
attempt(os.mknod, "/tmp/disk", 0o60600, os.makedev(8, 0))
"""
    )

    assert outcome.lines == ["EPERM"] * 4 + ["ENOSYS", "EPERM", "EPERM"]


def test_nothing_can_be_typed_into_a_terminal(attacker: Attacker) -> None:
    """TIOCSTI would put words into the mouth of whoever started the runner."""
    outcome = attacker.python(
        """
attempt(fcntl.ioctl, 0, 0x5412, b"x")
attempt(fcntl.ioctl, 0, 0x541C, b"x")
attempt(open, "/dev/tty")
"""
    )

    assert outcome.lines == ["EPERM", "EPERM", "ENXIO"]
