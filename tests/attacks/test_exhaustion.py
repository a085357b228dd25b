"""Bombs: each ends its own sandbox, with a reason, and a neighbour answers meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.attacker import Attacker

MB = 1 << 20


def test_fork_bomb_ends_its_sandbox(attacker: Attacker) -> None:
    """The run ends as `too-many-processes`."""
    outcome = attacker.run("bomb() { bomb | bomb & }; bomb; sleep 50")

    assert outcome.verdict == "too-many-processes"


def test_memory_bomb_ends_its_sandbox(attacker: Attacker) -> None:
    """The run ends as `out-of-memory`."""
    outcome = attacker.python(
        """
held = []
while True:
    held.append(bytearray(1 << 23))
"""
    )

    assert outcome.verdict == "out-of-memory"


def test_memory_of_many_small_processes_counts_together(attacker: Attacker) -> None:
    """A limit per process would be none."""
    outcome = attacker.python(
        """
import time
for _ in range(20):
    if os.fork() == 0:
        break
held = bytearray(os.urandom(1 << 20)) * 20
time.sleep(50)
"""
    )

    assert outcome.verdict == "out-of-memory"


def test_memory_file_systems_are_bounded(attacker: Attacker) -> None:
    """/tmp and /dev/shm end with an error, or the run does; the host's memory is safe."""
    outcome = attacker.run(
        "head -c 40M /dev/zero > /dev/shm/a; for i in $(seq 30); do"
        " head -c 10M /dev/zero > /tmp/$i || exit; done; sleep 20"
    )

    assert "No space left" in outcome.err or outcome.verdict == "disk-full"


def test_disk_bomb_ends_its_sandbox(attacker: Attacker) -> None:
    """Many files, or one in HOME and one in the workspace: the sum counts."""
    outcome = attacker.run(
        "head -c 30M /dev/zero > ~/big; for i in $(seq 9); do"
        " head -c 10M /dev/zero > /workspace/$i; sleep 0.1; done; sleep 30"
    )

    assert outcome.verdict == "disk-full"


def test_single_file_is_bounded_by_the_kernel(attacker: Attacker) -> None:
    """One file can't exceed the disk limit, however fast it is written."""
    outcome = attacker.run(
        "trap '' XFSZ; head -c 300M /dev/zero > /workspace/big; stat -c %s /workspace/big"
    )

    assert "File too large" in outcome.err or outcome.verdict == "disk-full"


def test_deleted_files_count(attacker: Attacker) -> None:
    """A file without a name takes as much room as one with."""
    outcome = attacker.python(
        """
import time
for number in range(8):
    fd = os.open("/workspace/x", os.O_RDWR | os.O_CREAT)
    os.unlink("/workspace/x")
    os.write(fd, bytes(10 << 20))
time.sleep(50)
"""
    )

    assert outcome.verdict == "disk-full"


def test_hidden_files_count(attacker: Attacker) -> None:
    """A folder with mode 000 is no hiding place."""
    outcome = attacker.run(
        "mkdir /workspace/d; for i in $(seq 8); do head -c 10M /dev/zero > /workspace/d/$i;"
        " done; chmod 000 /workspace/d; sleep 30"
    )

    assert outcome.verdict == "disk-full"


def test_inode_bomb_ends_its_sandbox(attacker: Attacker) -> None:
    """Empty files take inodes, which run out as well."""
    outcome = attacker.python(
        """
import time
for number in range(20_000):
    os.close(os.open(f"/workspace/{number}", os.O_CREAT))
time.sleep(50)
""",
        disk_bytes=4 * MB,
    )

    assert outcome.verdict == "disk-full"


def test_open_files_are_bounded(attacker: Attacker) -> None:
    """The kernel refuses the next one."""
    outcome = attacker.python(
        """
held = []
try:
    while True:
        held.append(open("/dev/null"))
except OSError as exc:
    print(errno.errorcode[exc.errno], len(held) < 300)
""",
        open_files=256,
    )

    assert outcome.lines == ["EMFILE True"]
