"""The three formats of a stream, byte for byte, and how they end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_runner import FINISHED, STARTED, playing, text
from tests.support.gateway import gateway_settings, run_gateway

if TYPE_CHECKING:
    from tests.support.fake_runner import FakeRunner, Stage
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

PIECES = ["Grüße ", "🙂", " an\nalle", " – naïve"]
TEXT, SSE, NDJSON = "text/plain", "text/event-stream", "application/x-ndjson"


async def test_text_is_the_answer_and_a_last_line(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Plain text holds the agent's words and nothing else, then that it is done, and for whom."""
    runner.script = playing(STARTED, *map(text, PIECES), FINISHED)

    async with gateway.stream(alice) as response:
        body = await response.read()

    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert body.decode() == "".join(PIECES) + "\n[✔ User Älice Ünger - Fertig!]\n"


async def test_sse_has_number_kind_and_data(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Server-sent events carry the runner's events unchanged."""
    runner.script = playing(STARTED, text("Grüße 🙂"), FINISHED)

    async with gateway.stream(alice, accept=SSE) as response:
        body = await response.text("utf-8")

    expected = [
        f"id: {seq}\nevent: {event['type']}\ndata: "
        + json.dumps({"seq": seq, **event}, ensure_ascii=False)
        + "\n\n"
        for seq, event in enumerate([STARTED, text("Grüße 🙂"), FINISHED])
    ]
    assert response.headers["Content-Type"] == SSE
    assert body == "retry: 2000\n\n" + "".join(expected)


async def test_ndjson_is_one_event_a_line(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Lines of JSON carry the runner's events unchanged."""
    runner.script = playing(STARTED, text("Grüße 🙂"), FINISHED)

    async with gateway.stream(alice, accept=NDJSON) as response:
        lines = (await response.read()).splitlines()

    assert [json.loads(line) for line in lines] == [
        {"seq": seq, **event} for seq, event in enumerate([STARTED, text("Grüße 🙂"), FINISHED])
    ]


async def test_streams_are_not_kept_or_collected_on_the_way(
    gateway: RunningGateway, alice: User
) -> None:
    """Caches and buffering proxies are told to let a stream through."""
    async with gateway.stream(alice) as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in response.headers
        assert len(response.headers["X-Run-ID"]) == 15
        assert response.headers["X-Request-ID"]


@pytest.mark.parametrize("accept", [TEXT, SSE, NDJSON])
async def test_each_piece_arrives_before_the_next_is_made(
    gateway: RunningGateway, runner: FakeRunner, alice: User, accept: str
) -> None:
    """Nothing waits in the gateway: a piece is read before the runner may send another."""
    turns: asyncio.Queue[str] = asyncio.Queue()

    async def script(stage: Stage) -> None:
        await stage.send(STARTED)
        for _ in range(20):
            await stage.send(text(await turns.get()))
        await turns.get()
        await stage.send(FINISHED)

    runner.script = script

    async with gateway.stream(alice, accept=accept) as response:
        for number in range(20):
            piece = f"ß{number}🙂"
            turns.put_nowait(piece)
            seen = b""
            async with asyncio.timeout(10):
                while piece.encode() not in seen:
                    seen += await response.content.readany()
        turns.put_nowait("the end")
        rest = await response.text()

    assert "Fertig!" in rest or "run.finished" in rest


async def test_headers_come_before_the_first_event(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """An accepted run is told at once, however long its first event takes."""
    go = asyncio.Event()

    async def script(stage: Stage) -> None:
        await go.wait()
        await stage.send(STARTED, FINISHED)

    runner.script = script

    async with asyncio.timeout(10), gateway.stream(alice) as response:
        assert response.status == 200
        go.set()
        assert (await response.text()).endswith("Fertig!]\n")


@pytest.mark.parametrize(
    ("accept", "heartbeat"), [(SSE, b": heartbeat\n\n"), (NDJSON, b"\n"), (TEXT, b"")]
)
async def test_silence_is_filled_with_what_readers_ignore(
    pocketbase: RunningPocketBase,
    runner: FakeRunner,
    alice: User,
    accept: str,
    heartbeat: bytes,
) -> None:
    """A quiet run keeps its connection warm, and no event is lost over it."""
    go = asyncio.Event()

    async def script(stage: Stage) -> None:
        await stage.send(STARTED)
        await go.wait()
        await stage.send(text("spät"), FINISHED)

    runner.script = script
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_heartbeat_s=0.02)

    async with run_gateway(settings) as gateway, gateway.stream(alice, accept=accept) as response:
        body = b""
        async with asyncio.timeout(10):
            while heartbeat and body.count(heartbeat) < 4:
                body += await response.content.readany()
            go.set()
            body += await response.read()

    assert "spät".encode() in body
    assert body.replace(heartbeat, b"", 1) != body or not heartbeat


async def test_failed_run_ends_with_its_message(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """In plain text a failure is the last line, instead of the good end."""
    failed = {"type": "run.failed", "code": "provider-timeout", "message": "Keine\nAntwort"}
    runner.script = playing(STARTED, text("Hal"), failed)

    async with gateway.stream(alice) as response:
        assert await response.text() == "Hal\n[ERROR] Keine Antwort\n"


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("de", "Der Lauf wurde abgebrochen"), ("en", "The run was cancelled")],
)
async def test_cancelled_run_says_so(
    gateway: RunningGateway, runner: FakeRunner, alice: User, language: str, sentence: str
) -> None:
    """In plain text a cancelled run ends with a sentence in the caller's language."""
    runner.script = playing(STARTED, {"type": "run.cancelled", "by": "user"})

    async with gateway.request(
        "GET",
        "/opencode/stream?prompt=x",
        user=alice,
        headers={"Accept-Language": language},
    ) as response:
        assert await response.text() == f"\n[ERROR] {sentence}\n"


@pytest.mark.parametrize("way", ["dropped", "ended", "garbage"])
async def test_runner_lost_midway_is_a_terminal_event(
    gateway: RunningGateway, runner: FakeRunner, alice: User, way: str
) -> None:
    """Whatever becomes of the runner, the stream ends with an event that says so."""

    async def script(stage: Stage) -> None:
        await stage.until_read()
        await stage.send(STARTED, text("Hal"))
        while way != "ended":
            await asyncio.sleep(0.01)
            if way == "garbage":
                await stage.send_raw(b"<html>\n")
            else:
                stage.drop()

    runner.script = script

    async with gateway.stream(alice, accept=NDJSON) as response:
        *_, last = [json.loads(line) for line in (await response.read()).splitlines()]

    assert last["type"] == "run.failed"
    assert last["code"] == "runner-unavailable"
    assert last["message"].startswith("Der Runner ist gerade nicht erreichbar")


async def test_unknown_kinds_of_events_pass(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """A newer runner may say more than this gateway knows."""
    news = {"type": "weather.changed", "sky": "blau"}
    runner.script = playing(STARTED, news, FINISHED)

    async with gateway.stream(alice, accept=NDJSON) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]

    assert {"seq": 1, **news} in lines


async def test_the_runner_gets_what_the_caller_sent(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Prompt, model, user and language reach the runner; the request's id goes with them."""
    async with gateway.request(
        "POST",
        "/opencode/stream",
        user=alice,
        json={"prompt": "Grüße 🙂", "model": "demo/tools"},
        headers={"Accept-Language": "en-GB", "X-Request-ID": "my-request-1"},
    ) as response:
        await response.read()

    [body] = runner.started
    assert body.pop("run_id") == response.headers["X-Run-ID"]
    assert body == {
        "subject": alice.id,
        "prompt": "Grüße 🙂",
        "model": "demo/tools",
        "language": "en",
        "attached": True,
        "idempotency_key": None,
        "join_within_s": 1.0,
        "come_back": False,
        "permission": None,
    }
    assert runner.headers[0]["X-Request-ID"] == "my-request-1"
    assert response.headers["X-Request-ID"] == "my-request-1"


async def test_anonymous_callers_run_where_they_may(
    pocketbase: RunningPocketBase, runner: FakeRunner
) -> None:
    """The operator can let callers without a token in; a bad token is refused all the same."""
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_allow_anonymous=True)
    async with run_gateway(settings) as gateway:
        async with gateway.stream(None) as response:
            assert (await response.text()).endswith("[✔ User anonymous - Fertig!]\n")
        assert runner.started[0]["subject"] == "anonymous"
        assert "key" not in runner.started[0]

        bad = {"Authorization": "Bearer nonsense"}
        async with gateway.request("GET", "/opencode/stream?prompt=x", headers=bad) as response:
            assert response.status == 401
        async with gateway.request("GET", "/opencode/key") as response:
            assert response.status == 401


async def test_names_cannot_forge_lines(
    gateway: RunningGateway, pocketbase: RunningPocketBase
) -> None:
    """A name with line breaks or control characters stays one harmless line; none: the address."""
    mallory = pocketbase.new_user("Mal\n[✔ User root - Fertig!]\x1b[2J")
    nameless = pocketbase.new_user("")

    async with gateway.stream(mallory) as response:
        body = await response.text()
    async with gateway.stream(nameless) as response:
        other = await response.text()

    assert body.endswith("\n[✔ User Mal [✔ User root - Fertig!] [2J - Fertig!]\n")
    assert other.endswith(f"\n[✔ User {nameless.email} - Fertig!]\n")


async def test_callers_who_leave_end_their_run(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Hanging up reaches the runner at once."""

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, text("Hallo"))
        await asyncio.Event().wait()

    runner.script = script

    async with gateway.stream(alice) as response:
        assert await response.content.readany() == b"Hallo"
        response.close()

    async with asyncio.timeout(10):
        await runner.left.wait()


async def test_readers_who_take_nothing_are_cut_off(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """A reader that has stopped reading does not hold its run for ever."""

    async def script(stage: Stage) -> None:
        for _ in range(200):
            await stage.send(text("x" * 100_000))
        await asyncio.Event().wait()

    runner.script = script
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_write_timeout_s=0.2)
    async with run_gateway(settings) as gateway, gateway.stream(alice) as response:
        async with asyncio.timeout(20):
            await runner.left.wait()
        assert response.status == 200


_PIECES = 200  # of a megabyte: more than all buffers on the way hold


async def test_a_slow_reader_slows_its_own_run_alone(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """What it does not take, the gateway does not take from the runner; others notice nothing."""
    handed_over, stuck = 0, asyncio.Event()

    def count(data: bytes) -> None:
        nonlocal handed_over
        handed_over += bool(data)

    async def big(stage: Stage) -> None:
        for number in range(_PIECES):
            await stage.send(text("x" * 1_000_000))
            try:
                async with asyncio.timeout(1):
                    while handed_over <= number:
                        await asyncio.sleep(0.001)
            except TimeoutError:
                break
        stuck.set()
        await asyncio.Event().wait()

    runner.script, runner.cut_after = big, count
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_write_timeout_s=60)
    async with run_gateway(settings) as gateway, gateway.stream(alice, prompt="slow"):
        async with asyncio.timeout(50):
            await stuck.wait()
        assert handed_over < _PIECES / 2

        runner.script = playing(STARTED, text("Hallo"), FINISHED)
        async with gateway.stream(alice, prompt="quick") as response:
            assert (await response.text()).startswith("Hallo")
