"""What a tenant may not learn: other runs, the host, the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.attacker import Attacker


def test_other_runs_are_not_there(attacker: Attacker) -> None:
    """Neither a neighbour's workspace nor the folder of all runs can be seen."""
    outcome = attacker.run(
        "ls {base}; cat {base}/neighbour/workspace/secret; ls {base}/neighbour/home;"
        "find / -xdev -name secret 2>/dev/null"
    )

    assert outcome.out == ""
    assert outcome.err.count("No such file or directory") == 3


def test_host_files_are_not_there(attacker: Attacker) -> None:
    """Of the host there are system folders and nothing else; in a container not even those."""
    outcome = attacker.run("ls /root /home/* /srv /mnt /boot /sys; cat /etc/shadow; ls /home")

    assert outcome.lines[-1] == "user"
    if attacker.who == "docker":
        found = {line for line in outcome.lines if line and not line.endswith(":")}
        assert found == {"user"}
        assert outcome.err.count("denied") == 2  # /root, /etc/shadow: the image's own
    else:
        assert outcome.err.count("No such file or directory") == 6
    attacker.run("cat {base}/outside/precious /proc/1/root/{base}/outside/precious")


def test_secrets_and_volumes_of_a_container_are_not_there(attacker: Attacker) -> None:
    """Where the runner is in a container, its user can read these; a sandbox can't."""
    outcome = attacker.run(
        "cat /run/secrets/*; ls /run /data /app /closed; ls -d /proc/1/root/data"
    )

    assert outcome.lines == ["/run:"]
    assert outcome.err.count("No such file or directory") == 5


def test_host_processes_are_not_there(attacker: Attacker) -> None:
    """A sandbox sees its own processes only, and no foreign environment or memory."""
    outcome = attacker.run(
        "ls -d /proc/{pid}; cat /proc/{pid}/environ /proc/{pid}/mem; cat /proc/[0-9]*/environ;"
        "echo; ls -d /proc/[0-9]* | wc -l"
    )

    assert int(outcome.lines[-1]) <= 5
    assert outcome.err.count("No such file or directory") == 3


def test_command_line_of_the_sandbox_tells_no_options(attacker: Attacker) -> None:
    """What the first process was told, no other one can read: no path of the host shows."""
    outcome = attacker.run("tr '\\0' ' ' < /proc/1/cmdline | cut -d: -f1")

    if attacker.who == "docker":
        assert outcome.out.startswith("/usr/bin/python3 -S -P -m runner.container /home/user=")
    else:
        assert outcome.out.partition(" -- ")[0].split()[1] == "--args"


def test_descriptors_of_the_runner_are_not_inherited(attacker: Attacker) -> None:
    """Standard input and outputs are all that a command begins with."""
    outcome = attacker.run("exec ls /proc/self/fd")

    assert outcome.lines == ["0", "1", "2", "3"]  # 3 is ls's own


def test_kernel_log_and_keys_are_closed(attacker: Attacker) -> None:
    """Kernel messages and keyrings are the whole machine's."""
    outcome = attacker.python(
        """
call((103, 116), 3, ctypes.create_string_buffer(64), 64)  # syslog
call((250, 219), 0, -3, 0)                                # keyctl: session keyring
call((248, 217), b"user", b"name", b"value", 5, -3)       # add_key
call((249, 218), b"user", b"name", None, -3)              # request_key
attempt(open, "/dev/kmsg")
"""
    )

    assert outcome.lines == ["EPERM", "EPERM", "EPERM", "EPERM", "ENOENT"]


def test_devices_are_the_harmless_ones(attacker: Attacker) -> None:
    """No disk, no memory, no virtual machine, no vsock among the devices."""
    outcome = attacker.run("cd /dev; find . -type c -o -type b | sort | tr '\\n' ' '")

    assert set(outcome.out.split()) <= {
        *("./full", "./null", "./random", "./tty", "./urandom", "./zero", "./ptmx"),
        "./pts/ptmx",
    }
