"""A run's events outlive connections, readers and the runner itself."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import unused_port

from runner.contract import events
from runner.contract.wire import decode_event
from tests.support.fake_provider import Plan, fake_provider
from tests.support.processes import alive, eventually, files_with
from tests.support.runner import read_events, run_runner, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunnerClient, RunningRunner

PATIENCE_S = 150
pytestmark = pytest.mark.timeout(PATIENCE_S + 30)


def without_heartbeats(data: bytes) -> bytes:
    return b"".join(line for line in data.splitlines(keepends=True) if line != b"\n")


async def read_with_cuts(client: RunnerClient, run_id: str, seed: int) -> bytes:
    """Return a run's log, read in parts: the connection is cut at random bytes."""
    chance = random.Random(seed)
    got, after = b"", None
    while True:
        part, cut_at, ended = b"", chance.randrange(1, 600), False
        async with client.events(run_id, after=after) as response:
            async for data in response.content.iter_any():
                part += data
                if len(part) > cut_at:
                    part = part[:cut_at]
                    break
            else:
                ended = True
        whole = without_heartbeats(part[: part.rfind(b"\n") + 1])
        got += whole
        if whole:
            after = decode_event(whole.splitlines()[-1]).seq
        if ended:
            return got


async def test_readers_that_are_cut_off_miss_nothing(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """Each comes back with the last number it has; together that is the log, byte for byte."""
    pieces = [f"{number} grüße 🌍 " for number in range(80)]
    provider.plan = Plan(pieces=pieces, interval_s=0.02)
    async with runner.client() as client, asyncio.timeout(PATIENCE_S):
        run_id = await client.start()
        read = await asyncio.gather(*(read_with_cuts(client, run_id, seed) for seed in range(12)))
        reference = await client.raw_log(run_id)

        assert set(read) == {reference}
        assert reference == (runner.data_dir / "runs" / run_id / "events.ndjson").read_bytes()
        told = [decode_event(line) for line in reference.splitlines()]
        assert text_of(told) == "".join(pieces)
        assert [event.seq for event in told] == list(range(len(told)))
        assert await client.raw_log(run_id, after=told[-1].seq) == b""
        state = await client.state(run_id)
        assert (state.status, state.phase) == ("finished", "ended")
        assert (state.last_seq, state.duration_s) == (told[-1].seq, told[-1].duration_s)  # type: ignore[union-attr]
        assert state.usage is not None
        assert state.usage.output_tokens == 11


async def test_a_detached_run_needs_no_reader(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """Nobody reads it while it runs; afterwards everything is there."""
    async with runner.client() as client, asyncio.timeout(PATIENCE_S):
        run_id = await client.start()
        while (await client.state(run_id)).phase != "ended":
            await asyncio.sleep(0.05)
        assert text_of(await client.log(run_id)) == "Hello world"


async def test_halves_of_a_character_arrive_whole(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """A provider may cut an emoji's escaped halves apart."""
    provider.plan = Plan(pieces=["a\ud83c", "\udf0d", "b"])

    assert text_of(await runner.run()) == "a🌍b"


async def test_a_killed_runner_leaves_its_logs_readable(tmp_path: Path) -> None:
    """After kill -9: what was written is there, then runner-restarted; finished runs stay as is."""
    port = unused_port()
    settings = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    prompt = "a-prompt-that-stays-in-memory"
    async with fake_provider(port) as provider, asyncio.timeout(PATIENCE_S):
        with run_runner(tmp_path, **settings) as runner:
            async with runner.client() as client:
                whole = await client.start("first", idempotency_key="first")
                finished = await client.raw_log(whole)
                gate = asyncio.Semaphore(3)
                provider.plan = Plan(pieces=["a", "b", "c", "d"], gate=gate)
                run_id = await client.start(prompt, key="sk-user-77", idempotency_key="second")
                async with client.events(run_id) as response:
                    seen = b""
                    async for data in response.content.iter_any():
                        seen += data
                        if b'"c"' in seen:
                            break
                assert files_with(prompt, runner.data_dir / "runs") == []
                assert files_with("sk-user-77", runner.data_dir / "runs") == []
                processes = runner.sandboxed()
                await asyncio.to_thread(runner.stop, signal.SIGKILL)

        with run_runner(tmp_path, **settings) as runner:
            async with runner.client() as client:
                assert await client.raw_log(whole) == finished
                assert (await client.state(whole)).status == "finished"
                again = await client.raw_log(run_id)
                assert again.startswith(without_heartbeats(seen))
                last = decode_event(again.splitlines()[-1])
                assert isinstance(last, events.RunFailed)
                assert last.code == "runner-restarted"
                state = await client.state(run_id)
                assert (state.status, state.error_code) == ("failed", "runner-restarted")
                for key, known, asked in (("first", whole, "first"), ("second", run_id, prompt)):
                    async with client.post(asked, idempotency_key=key) as response:
                        answer = await response.json()
                        assert answer == {"run_id": known, "joined": True}
        await eventually(lambda: alive(processes) == [], within_s=5)


async def test_a_run_that_says_too_much_is_ended(tmp_path: Path) -> None:
    """RUNNER_OUTPUT_MB bounds its text; RUNNER_RUN_LOG_MB its log, told as a gap."""
    async with fake_provider() as provider, asyncio.timeout(PATIENCE_S):
        provider.plan = Plan(pieces=["x" * 100_000] * 200, interval_s=0.001)
        with run_runner(
            tmp_path,
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=provider.base_url,
            RUNNER_OUTPUT_MB="2",
            RUNNER_RUN_LOG_MB="1",
        ) as runner:
            told = await runner.run()

    assert isinstance(told[-1], events.RunFailed), told[-1]
    assert told[-1].code == "output-limit"
    gaps = [event for event in told if isinstance(event, events.StreamGap)]
    missing = [seq for gap in gaps for seq in range(gap.from_, gap.to)]  # its own number is `to`
    assert missing
    assert sorted([*missing, *(event.seq for event in told)]) == list(range(told[-1].seq + 1))
    assert len(text_of(told)) < 1 << 20


async def test_old_runs_are_forgotten(tmp_path: Path) -> None:
    """RUNNER_RETENTION_S after their end."""
    async with fake_provider() as provider, asyncio.timeout(PATIENCE_S):
        with run_runner(
            tmp_path,
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=provider.base_url,
            RUNNER_RETENTION_S="1",
        ) as runner:
            await runner.run()
            (directory,) = (runner.data_dir / "runs").iterdir()
            await eventually(lambda: not directory.exists())
            async with runner.client() as client:
                assert await client.status_of("GET", f"/runs/{directory.name}/events") == 404


async def test_two_readers_see_the_same_at_once(
    runner: RunningRunner, provider: FakeProvider
) -> None:
    """One piece sent is one event at every reader, before the next piece is sent."""
    gate = asyncio.Semaphore(0)
    provider.plan = Plan(pieces=["a", "b", "c"], gate=gate)
    async with runner.client() as client, asyncio.timeout(PATIENCE_S):
        run_id = await client.start()
        async with client.events(run_id) as first, client.events(run_id) as second:
            readers = read_events(first), read_events(second)
            for reader in readers:
                assert isinstance(await anext(reader), events.RunStarted)
            for piece in "abc":
                gate.release()
                for reader in readers:
                    event = await anext(reader)
                    while isinstance(event, events.UsageUpdated):  # told by the door, not OpenCode
                        event = await anext(reader)
                    assert isinstance(event, events.TextDelta)
                    assert event.text == piece
            rests = [[event async for event in reader] for reader in readers]
        assert rests[0] == rests[1]
