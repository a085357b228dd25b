"""A run's log: what readers get is what is in the file, whatever happens to the writer."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.contract import events
from runner.contract.problems import NotFound
from runner.contract.requests import RunState
from runner.contract.wire import decode_event, encode_event
from runner.run_log.lines import last_line_start, offset_after
from runner.run_log.meta import RunMeta
from runner.run_log.reader import open_reader
from runner.run_log.store import RunLogs, open_run_logs

if TYPE_CHECKING:
    from pathlib import Path

    from runner.contract.events import RunEvent
    from runner.run_log.log import RunLog

RUN_ID = "abcdefghij12345"
STARTED = events.RunStarted(model="openai/x", session_id="s", queued_s=0.5)
FINISHED = events.RunFinished(stop_reason="end_turn", duration_s=1.5)


def meta(
    run_id: str = RUN_ID, *, subject: str = "alice", idempotency: str | None = None
) -> RunMeta:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    state = RunState(
        run_id=run_id,
        subject=subject,
        status="queued",
        phase="queued",
        model="openai/x",
        created_at=now,
    )
    return RunMeta(state=state, language="en", body="b", idempotency=idempotency)


def logs_in(directory: Path, *, limit_bytes: int = 1 << 20, retention_s: float = 60) -> RunLogs:
    return RunLogs(directory / "runs", limit_bytes=limit_bytes, retention_s=retention_s)


def texts(*pieces: str) -> list[RunEvent]:
    return [events.TextDelta(text=piece) for piece in pieces]


def write(run_log: RunLog, *told: RunEvent) -> None:
    for event in told:
        run_log.append(event)


def in_file(run_log: RunLog) -> bytes:
    return (run_log.directory / "events.ndjson").read_bytes()


def decoded(data: bytes) -> list[RunEvent]:
    return [decode_event(line) for line in data.split(b"\n") if line]


async def read(run_log: RunLog, after: int | None = None) -> bytes:
    with open_reader(run_log) as reader:
        return b"".join([piece async for piece in reader.follow(after=after, heartbeat_s=60)])


async def test_events_are_numbered_and_read_back_in_order(tmp_path: Path) -> None:
    """From the start, or behind any event."""
    run_log = logs_in(tmp_path).create(meta())
    write(run_log, STARTED, *texts("ä", "🌍", "\n"), FINISHED)

    assert [event.seq for event in decoded(await read(run_log))] == [0, 1, 2, 3, 4]
    assert await read(run_log) == in_file(run_log)
    for after in range(6):
        assert [e.seq for e in decoded(await read(run_log, after))] == list(range(after + 1, 5))


async def test_a_reader_hears_what_comes_and_then_the_end(tmp_path: Path) -> None:
    """Live: an event is there as soon as it is written; silence is a heartbeat."""
    run_log = logs_in(tmp_path).create(meta())
    with open_reader(run_log) as reader:
        pieces = reader.follow(after=None, heartbeat_s=0.01)
        assert await anext(pieces) == b""
        write(run_log, *texts("now"))
        piece = b""
        while not piece:
            piece = await anext(pieces)
        assert decoded(piece) == [events.TextDelta(seq=0, text="now")]
        write(run_log, FINISHED)
        rest = [piece async for piece in pieces]
    assert decoded(b"".join(rest))[-1] == FINISHED.model_copy(update={"seq": 1})


async def test_many_readers_cut_anywhere_get_the_same_bytes(tmp_path: Path) -> None:
    """Each goes on behind the last whole event it had; together that is the file."""
    run_log = logs_in(tmp_path).create(meta())

    async def reader(cut_after: int) -> bytes:
        got, after, ended = b"", None, False
        while not ended:
            with open_reader(run_log) as reading:
                fresh = b""
                async for piece in reading.follow(after=after, heartbeat_s=60):
                    fresh += piece
                    if len(fresh) > cut_after:
                        break
                else:
                    ended = True
            whole = fresh[: fresh.rfind(b"\n") + 1]
            got += whole
            if whole:
                after = decoded(whole)[-1].seq
        return got

    reading = [asyncio.create_task(reader(cut)) for cut in (1, 50, 333, 5000, 10**9) for _ in "ab"]
    for number in range(400):
        write(run_log, *texts("x" * (number % 97)))
        if number % 7 == 0:
            await asyncio.sleep(0)
    write(run_log, FINISHED)

    async with asyncio.timeout(30):
        got = await asyncio.gather(*reading)
    assert set(got) == {in_file(run_log)}


@settings(max_examples=60)
@given(st.lists(st.integers(0, 200_000), max_size=30), st.integers(-1, 40))
def test_the_place_behind_an_event_is_found(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], after: int
) -> None:
    """Whatever the lengths of the lines are, also where numbers are missing."""
    lines = [
        encode_event(events.TextDelta(seq=2 * number, text="y" * size))
        for number, size in enumerate(sizes)
    ]
    path = tmp_path_factory.mktemp("lines") / "log"
    path.write_bytes(b"".join(lines))
    before = [line for number, line in enumerate(lines) if 2 * number <= after]
    fd = os.open(path, os.O_RDONLY)
    try:
        size = path.stat().st_size
        assert offset_after(fd, size, after) == len(b"".join(before))
        assert last_line_start(fd, size) == size - len(lines[-1] if lines else b"")
    finally:
        os.close(fd)
        path.unlink()


async def test_a_slow_reader_holds_nobody_up(tmp_path: Path) -> None:
    """The writer never waits, another reader has it all, and the slow one misses nothing."""
    run_log = logs_in(tmp_path, limit_bytes=1 << 24).create(meta())
    write(run_log, STARTED)
    with open_reader(run_log) as slow:
        reading = slow.follow(after=None, heartbeat_s=60)
        got = await anext(reading)

        write(run_log, *texts(*["x" * 1000] * 5000), FINISHED)  # nothing here can be waited for
        quick = await read(run_log)

        async for piece in reading:
            got += piece
    assert got == quick == in_file(run_log)
    assert len(decoded(quick)) == 5002


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "unended"])
async def test_a_log_cut_at_any_byte_is_whole_again_after_recovery(
    tmp_path: Path, *, ended: bool
) -> None:
    """Whole events stay as they were; the run ends as it did, or in runner-restarted."""
    run_log = logs_in(tmp_path).create(meta())
    write(run_log, STARTED, *texts("a", "ü\n", "🌍"), *([FINISHED] if ended else []))
    data = in_file(run_log)
    source = tmp_path / "runs"
    for length in range(len(data) + 1):
        copy = tmp_path / f"cut{length}"
        shutil.copytree(source, copy / "runs")
        (copy / "runs" / RUN_ID / "events.ndjson").write_bytes(data[:length])
        whole = data[: data.rfind(b"\n", 0, length) + 1]

        logs = logs_in(copy)
        died = await logs.recover()

        recovered = logs.get(RUN_ID)
        assert recovered is not None
        told = decoded(in_file(recovered))
        kept_end = ended and length == len(data)
        assert died == (0 if kept_end else 1)
        assert in_file(recovered).startswith(whole)
        assert [event.seq for event in told] == list(range(len(told)))
        if kept_end:
            assert in_file(recovered) == data
            assert recovered.state.status == "finished"
        else:
            assert len(told) == len(decoded(whole)) + 1
            assert isinstance(told[-1], events.RunFailed)
            assert told[-1].code == recovered.state.error_code == "runner-restarted"
            assert recovered.state.status == "failed"
        assert await read(recovered) == in_file(recovered)
        shutil.rmtree(copy)


async def test_what_a_killed_run_has_used_is_still_known(tmp_path: Path) -> None:
    """The latest word of it, whatever else in the log looks like one."""
    used = events.UsageUpdated(input_tokens=10, output_tokens=2, cost_usd=0.5)
    fake = events.ToolStarted(id="1", name="x", title="x", input={"type": "usage.updated"})
    first = events.UsageUpdated(input_tokens=1)
    write(logs_in(tmp_path).create(meta()), STARTED, first, used, fake, *texts("a"))
    logs = logs_in(tmp_path)

    await logs.recover()

    recovered = logs.get(RUN_ID)
    assert recovered is not None
    assert recovered.state.usage == events.Usage(input_tokens=10, output_tokens=2, cost_usd=0.5)
    assert recovered.state.error_code == "runner-restarted"


async def test_recovering_again_changes_nothing(tmp_path: Path) -> None:
    """A runner that is killed twice tells its readers one end."""
    write(logs_in(tmp_path).create(meta()), STARTED, *texts("a"))
    first = logs_in(tmp_path)
    assert await first.recover() == 1
    once = first.get(RUN_ID)
    assert once is not None
    data, state = in_file(once), once.state

    second = logs_in(tmp_path)
    assert await second.recover() == 0
    twice = second.get(RUN_ID)
    assert twice is not None
    assert (in_file(twice), twice.state) == (data, state)


async def test_what_was_half_made_or_half_removed_is_swept(tmp_path: Path) -> None:
    """A directory without meta data or without events is nobody's run."""
    logs = logs_in(tmp_path)
    directory = logs.create(meta()).directory
    (directory / "meta.json").unlink()
    other = logs.create(meta("b" * 15)).directory
    (other / "events.ndjson").unlink()

    again = logs_in(tmp_path)

    assert await again.recover() == 0
    assert again.find(subject=None, run_ids=None) == []
    assert not directory.exists()
    assert not other.exists()


async def test_what_exceeds_the_bound_becomes_one_honest_gap(tmp_path: Path) -> None:
    """Every number is an event's or inside the gap; the end is always there."""
    run_log = logs_in(tmp_path, limit_bytes=1000).create(meta())
    write(run_log, STARTED, *texts(*["x" * 40] * 50), FINISHED)

    told = decoded(await read(run_log))

    gaps = [event for event in told if isinstance(event, events.StreamGap)]
    assert len(gaps) == 1
    assert gaps[0].seq == gaps[0].to == 50
    assert [event.seq for event in told] == [*range(gaps[0].from_), 50, 51]
    assert isinstance(told[-1], events.RunFinished)
    assert run_log.size < 1300
    assert [e.seq for e in decoded(await read(run_log, gaps[0].from_))] == [50, 51]


async def test_a_line_larger_than_the_bound_is_missing_as_a_whole(tmp_path: Path) -> None:
    """And so is what follows: a text with a hole in it would look whole."""
    run_log = logs_in(tmp_path, limit_bytes=1000).create(meta())
    write(run_log, STARTED, *texts("a", "x" * 100_000, "b"), FINISHED)

    told = decoded(await read(run_log))

    assert told[2] == events.StreamGap(seq=3, from_=2, to=3)
    assert [event.seq for event in told] == [0, 1, 3, 4]
    assert run_log.size < 1300


async def test_a_full_disk_costs_events_and_not_the_run(tmp_path: Path) -> None:
    """What can't be written becomes a gap; the end is told even then."""
    run_log = logs_in(tmp_path).create(meta())
    write(run_log, *texts("before"))
    healthy = run_log._fd
    assert healthy is not None
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        run_log._fd = full
        write(run_log, *texts("lost", "lost"))
        run_log._fd = healthy
        write(run_log, *texts("after"))
        run_log._fd = full
        write(run_log, FINISHED)  # closes its file
    finally:
        os.close(healthy)

    told = decoded(await read(run_log))

    assert told == [
        events.TextDelta(seq=0, text="before"),
        events.StreamGap(seq=2, from_=1, to=2),
        events.TextDelta(seq=3, text="after"),
        FINISHED.model_copy(update={"seq": 4}),
    ]


async def test_old_logs_are_swept_and_a_reader_inside_reads_on(tmp_path: Path) -> None:
    """What ended longer ago than is kept goes; what runs stays."""
    logs = logs_in(tmp_path, retention_s=0.001)
    ended, running = logs.create(meta()), logs.create(meta("c" * 15))
    write(ended, *texts("a"), FINISHED)
    data = in_file(ended)
    with open_reader(ended) as reader:
        logs._now = lambda: datetime.now(UTC) + timedelta(seconds=1)
        assert await logs.sweep() == 1
        got = [piece async for piece in reader.follow(after=None, heartbeat_s=60)]

    assert b"".join(got) == data
    assert not ended.directory.exists()
    assert logs.get(RUN_ID) is None
    assert logs.get("c" * 15) is running
    with pytest.raises(NotFound), open_reader(ended):
        pass


async def test_sweeping_goes_on_while_the_logs_are_open(tmp_path: Path) -> None:
    """Nobody has to ask for it."""
    async with open_run_logs(tmp_path / "runs", limit_bytes=1 << 20, retention_s=0.01) as logs:
        run_log = logs.create(meta())
        write(run_log, FINISHED)
        async with asyncio.timeout(20):
            while run_log.directory.exists():
                await asyncio.sleep(0.05)


async def test_what_ended_before_a_start_can_still_be_asked_for_after_it(tmp_path: Path) -> None:
    """Gateways that were down as well record the end only then, however long that took."""
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    before = logs_in(tmp_path)
    before._now = lambda: long_ago
    write(before.create(meta()), FINISHED)
    async with open_run_logs(tmp_path / "runs", limit_bytes=1 << 20, retention_s=3600) as logs:
        known = logs.get(RUN_ID)
        assert known is not None
        assert known.state.status == "finished"


async def test_an_idempotency_key_is_known_for_a_day_and_after_a_restart(tmp_path: Path) -> None:
    """To its subject alone."""
    write(logs_in(tmp_path).create(meta(idempotency="k")), FINISHED)
    logs = logs_in(tmp_path, retention_s=10 * 86400)
    await logs.recover()

    found = logs.of_key("alice", "k")
    assert found is not None
    assert found.state.run_id == RUN_ID
    assert logs.of_key("bob", "k") is None
    logs._now = lambda: datetime.now(UTC) + timedelta(hours=25)
    assert logs.of_key("alice", "k") is None


async def test_the_files_are_private_and_hold_no_prompt(tmp_path: Path) -> None:
    """Only their owner reads them."""
    directory = logs_in(tmp_path).create(meta()).directory

    assert directory.stat().st_mode & 0o077 == 0
    assert (directory / "events.ndjson").stat().st_mode & 0o077 == 0
    assert set(RunMeta.model_fields) == {"state", "language", "body", "idempotency"}
