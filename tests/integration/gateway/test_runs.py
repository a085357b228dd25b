"""Runs that outlive their connection: started, looked at, read again, ended, answered."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fake_runner import FINISHED, STARTED, playing, run_fake_runner, text
from tests.support.gateway import gateway_settings, problem_of, run_gateway

if TYPE_CHECKING:
    from tests.support.fake_runner import FakeRunner, Stage
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

RUNS = "/opencode/runs"
NDJSON, SSE = "application/x-ndjson", "text/event-stream"
NOBODYS = "abcdefghij12345"


async def started(
    gateway: RunningGateway, user: User, prompt: str = "Hallo", **headers: str
) -> str:
    """Start a detached run; return its id."""
    async with gateway.request(
        "POST", RUNS, user=user, json={"prompt": prompt}, headers=headers
    ) as response:
        assert response.status == 202, await response.text()
        run_id: str = (await response.json())["id"]
    assert response.headers["Location"] == f"{RUNS}/{run_id}"
    return run_id


async def events(
    gateway: RunningGateway, user: User, run_id: str, *, accept: str = NDJSON, **headers: str
) -> bytes:
    async with gateway.request(
        "GET", f"{RUNS}/{run_id}/events", user=user, headers={"Accept": accept, **headers}
    ) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def json_of(
    gateway: RunningGateway, method: str, path: str, user: User
) -> tuple[int, dict[str, Any]]:
    async with gateway.request(method, path, user=user) as response:
        return response.status, await response.json()


async def endless(stage: Stage) -> None:
    await stage.send(STARTED, text("Hallo"))
    await asyncio.Event().wait()


async def test_a_detached_run_goes_on_without_readers_and_is_read_later(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Its events are there from the start, in each format, as often as one likes."""
    runner.script = playing(STARTED, text("Grüße 🙂"), FINISHED)

    run_id = await started(gateway, alice)
    lines = await events(gateway, alice, run_id)
    sse = await events(gateway, alice, run_id, accept=SSE)
    plain = await events(gateway, alice, run_id, accept="text/plain")

    assert lines == runner.runs[run_id].log
    assert sse.startswith(b"retry: 2000\n\nid: 0\nevent: run.started\n")
    assert plain.decode() == f"Grüße 🙂\n[✔ User {alice.name} - Fertig!]\n"
    assert runner.started[0]["attached"] is False
    assert runner.started[0]["subject"] == alice.id


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_a_reader_that_comes_back_gets_what_it_missed(
    gateway: RunningGateway, runner: FakeRunner, alice: User, way: str
) -> None:
    """After `Last-Event-ID`, or `?after=`; the header counts where a browser sends both."""
    runner.script = playing(STARTED, text("a"), text("b"), text("c"), FINISHED)
    run_id = await started(gateway, alice)
    query = {"header": "", "query": "?after=2", "both": "?after=0"}[way]
    headers = {"Accept": "text/plain"} | ({} if way == "query" else {"Last-Event-ID": "2"})

    async with gateway.request(
        "GET", f"{RUNS}/{run_id}/events{query}", user=alice, headers=headers
    ) as response:
        body = await response.text()

    assert body == f"c\n[✔ User {alice.name} - Fertig!]\n"


async def test_a_reader_that_has_everything_is_told_to_stay_away(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """204 ends a browser's EventSource; it would come back for ever otherwise."""
    run_id = await started(gateway, alice)
    await events(gateway, alice, run_id)

    async with gateway.request(
        "GET", f"{RUNS}/{run_id}/events", user=alice, headers={"Last-Event-ID": "2"}
    ) as response:
        assert (response.status, await response.read()) == (204, b"")
    for prompt in ("Hallo", "etwas%20anderes"):
        async with gateway.request(
            "GET", f"/opencode/stream?prompt={prompt}", user=alice, headers={"Last-Event-ID": "2"}
        ) as response:
            assert response.status == 204

    assert len(runner.runs) == 1


async def test_who_comes_back_to_the_stream_goes_on_reading_its_run(
    gateway: RunningGateway, runner: FakeRunner, alice: User, pocketbase: RunningPocketBase
) -> None:
    """An EventSource asks for the same address again: that is the same run, its owner's only."""
    bob = pocketbase.new_user("Bob")
    run_id = await started(gateway, alice)
    whole = await events(gateway, alice, run_id)

    again = {"Accept": "application/x-ndjson", "Last-Event-ID": "0"}
    path = "/opencode/stream?prompt=Hallo"
    async with gateway.request("GET", path, user=alice, headers=again) as response:
        assert (response.status, response.headers["X-Run-ID"]) == (200, run_id)
        rest = await response.read()
    async with gateway.request("GET", path, user=bob, headers=again) as response:
        assert response.status == 204

    assert rest == b"".join(whole.splitlines(keepends=True)[1:])
    assert len(runner.runs) == 1


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream", "application/x-ndjson"])
async def test_what_is_missing_is_told_in_every_format(
    gateway: RunningGateway, runner: FakeRunner, alice: User, accept: str
) -> None:
    """From the start, and to a reader that comes back with a number inside the gap."""
    gap = {"type": "stream.gap", "from": 2, "to": 40}
    runner.script = playing(STARTED, text("a"), gap, FINISHED)
    run_id = await started(gateway, alice)
    inside = f"{RUNS}/{run_id}/events?after=20"
    english = {"Accept-Language": "en"}
    headers = {"Accept": accept, **english}

    whole = await events(gateway, alice, run_id, accept=accept, **english)
    async with gateway.request("GET", inside, user=alice, headers=headers) as response:
        rest = await response.text()

    told = {
        "text/plain": "39 events are missing here",
        "text/event-stream": "id: 40\nevent: stream.gap\ndata: ",
        "application/x-ndjson": '{"seq": 40, "type": "stream.gap", "from": 2, "to": 40}\n',
    }[accept]
    assert told in rest
    assert whole.decode().endswith(rest.removeprefix("retry: 2000\n\n"))


async def test_events_that_never_were_are_refused(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Whether the run goes on or has ended: silence would look like a run that says nothing."""
    ended = await started(gateway, alice, "endet")
    await events(gateway, alice, ended)
    runner.script = endless
    live = await started(gateway, alice, "lebt")

    for run_id in (ended, live):
        async with gateway.request(
            "GET", f"{RUNS}/{run_id}/events", user=alice, params={"after": "3"}
        ) as response:
            problem = await problem_of(response)
        assert (response.status, problem["code"]) == (422, "event-unknown")
        assert "von vorn" in problem["error"]


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "²", "9" * 30])
async def test_a_last_event_that_can_not_be_is_refused(
    gateway: RunningGateway, alice: User, given: str
) -> None:
    """422, for the header as for the query."""
    run_id = await started(gateway, alice)

    async with gateway.request(
        "GET", f"{RUNS}/{run_id}/events", user=alice, headers={"Last-Event-ID": given}
    ) as response:
        assert (response.status, (await problem_of(response))["code"]) == (422, "invalid-field")
    async with gateway.request(
        "GET", f"{RUNS}/{run_id}/events", user=alice, params={"after": given}
    ) as response:
        assert (response.status, (await problem_of(response))["code"]) == (422, "invalid-field")


async def test_two_readers_see_the_same(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """One that was there from the start, one that came later: the same bytes."""
    go = asyncio.Event()

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, text("vor"))
        await go.wait()
        await stage.send(text("her"), FINISHED)

    runner.script = script
    run_id = await started(gateway, alice)
    first = asyncio.create_task(events(gateway, alice, run_id))
    await runner.runs[run_id].until_read()
    second = asyncio.create_task(events(gateway, alice, run_id))
    go.set()

    assert await first == await second == runner.runs[run_id].log


async def test_strangers_find_nothing(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Another's run is answered exactly like one that never was: 404."""
    runner.script = endless
    mallory = pocketbase.new_user("Mallory")
    run_id = await started(gateway, alice)

    for known in (run_id, NOBODYS):
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("HEAD", "/events"),
            ("DELETE", ""),
            ("POST", "/permissions/p1"),
        ):
            body = {"option": "once"} if method == "POST" else None
            async with gateway.request(
                method, f"{RUNS}/{known}{path}", user=mallory, json=body
            ) as response:
                assert response.status == 404
                if method != "HEAD":
                    assert (await problem_of(response))["code"] == "not-found"
    status, page = await json_of(gateway, "GET", RUNS, mallory)

    assert (status, page["items"]) == (200, [])
    assert not runner.runs[run_id].has_ended
    async with gateway.request("GET", f"{RUNS}/{run_id}") as response:
        assert response.status == 401


async def test_cancel_ends_the_run_and_may_be_said_twice(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """DELETE: the stream ends in `run.cancelled`; again it changes nothing."""
    runner.script = endless
    run_id = await started(gateway, alice)
    reader = asyncio.create_task(events(gateway, alice, run_id))
    await runner.runs[run_id].until_read()

    first = await json_of(gateway, "DELETE", f"{RUNS}/{run_id}", alice)
    second = await json_of(gateway, "DELETE", f"{RUNS}/{run_id}", alice)
    last = json.loads((await reader).splitlines()[-1])

    assert [status for status, _ in (first, second)] == [200, 200]
    assert first[1]["status"] == second[1]["status"] == "cancelled"
    assert last == {"seq": 2, "type": "run.cancelled", "by": "user"}


async def test_a_run_tells_whom_it_waits_for(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """State and phase come live from the runner."""
    asked = {
        "type": "permission.requested",
        "id": "p1",
        "title": "rm -rf /",
        "options": [{"id": "once", "name": "Once"}],
        "deadline": "2030-01-01T00:00:00Z",
    }

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, asked)
        permission, option = await stage.answers.get()
        await stage.send(
            {"type": "permission.resolved", "id": permission, "option": option, "by": "user"},
            FINISHED,
        )

    runner.script = script
    run_id = await started(gateway, alice)
    async with gateway.request("GET", f"{RUNS}/{run_id}", user=alice) as response:
        waiting = await response.json()

    assert (waiting["status"], waiting["phase"]) == ("running", "person")
    assert waiting["last_seq"] == 1
    assert "subject" not in waiting

    answer = f"{RUNS}/{run_id}/permissions"
    option = {"option": "once"}
    async with gateway.request("POST", f"{answer}/p2", user=alice, json=option) as response:
        assert response.status == 404
    async with gateway.request("POST", f"{answer}/p1", user=alice, json=option) as response:
        assert response.status == 204
    async with gateway.request("POST", f"{answer}/p1", user=alice, json=option) as response:
        assert (await problem_of(response))["code"] == "permission-resolved"
    async with gateway.request("POST", f"{answer}/p1", user=alice, json={}) as response:
        assert response.status == 422
    lines = [json.loads(line) for line in (await events(gateway, alice, run_id)).splitlines()]

    assert lines[-2]["option"] == "once"


async def test_the_same_idempotency_key_is_the_same_run(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Sent twice, carried out once; for another request 409; another user's is another's."""
    key = {"Idempotency-Key": "k-1"}
    bob = pocketbase.new_user("Bob")

    first = await started(gateway, alice, **key)
    again = await started(gateway, alice, **key)
    other = await started(gateway, bob, **key)
    async with gateway.request(
        "POST", "/opencode/stream", user=alice, json={"prompt": "Hallo"}, headers=key
    ) as response:
        streamed = response.headers["X-Run-ID"]
        await response.read()
    async with gateway.request(
        "POST", RUNS, user=alice, json={"prompt": "Anders"}, headers=key
    ) as response:
        problem = await problem_of(response)

    assert first == again == streamed != other
    assert (response.status, problem["code"]) == (409, "idempotency-conflict")


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
async def test_idempotency_keys_that_can_not_be_are_refused(
    gateway: RunningGateway, runner: FakeRunner, alice: User, key: str
) -> None:
    """422, and nothing is started."""
    async with gateway.request(
        "POST", RUNS, user=alice, json={"prompt": "x"}, headers={"Idempotency-Key": key}
    ) as response:
        assert (await problem_of(response))["code"] == "invalid-field"

    assert runner.started == []


async def test_a_double_click_is_one_run(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """The same prompt again at once joins the run that is on; another one does not."""
    runner.script = endless

    first = await started(gateway, alice)
    again = await started(gateway, alice)
    other = await started(gateway, alice, "Anders")

    assert first == again != other


async def test_debouncing_can_be_turned_off(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """With 0 each request is a run."""
    runner.script = endless
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_debounce_s=0)
    async with run_gateway(settings) as gateway:
        assert await started(gateway, alice) != await started(gateway, alice)


async def test_callers_without_an_account_share_nothing(
    pocketbase: RunningPocketBase, runner: FakeRunner
) -> None:
    """Who is nobody has no list, no keys and joins nobody; a run's id is what they have."""
    runner.script = endless
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_allow_anonymous=True)
    async with run_gateway(settings) as gateway:
        run_ids = set()
        for _ in range(2):
            async with gateway.request("POST", RUNS, json={"prompt": "x"}) as response:
                run_ids.add((await response.json())["id"])
        for method, path, headers in (
            ("GET", RUNS, {}),
            ("POST", RUNS, {"Idempotency-Key": "k"}),
        ):
            body = {"prompt": "x"} if method == "POST" else None
            async with gateway.request(method, path, json=body, headers=headers) as response:
                assert response.status == 401
        async with gateway.request("GET", f"{RUNS}/{run_ids.pop()}") as response:
            assert (await response.json())["status"] == "running"
        async with gateway.request("GET", f"{RUNS}/{NOBODYS}") as response:
            assert response.status == 404

    assert len(run_ids) == 1


async def test_the_runs_own_choice_reaches_the_runner(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """`permission` is passed on; a word that is none is refused."""
    for permission, status in (("ask", 202), ("perhaps", 422)):
        async with gateway.request(
            "POST", RUNS, user=alice, json={"prompt": "x", "permission": permission}
        ) as response:
            assert response.status == status

    assert [run["permission"] for run in runner.started] == ["ask"]


async def test_a_lost_runner_is_said_without_a_number(
    pocketbase: RunningPocketBase, alice: User
) -> None:
    """The gateway's own word about a runner that is gone must not hide an event of the log."""
    async with run_fake_runner() as runner:
        runner.script = endless
        settings = gateway_settings(pocketbase, runner_url=runner.url)
        async with run_gateway(settings) as gateway:
            run_id = await started(gateway, alice)
            runner.cut_after = len  # every connection breaks once it has brought what there is

            sse = (await events(gateway, alice, run_id, accept=SSE)).decode()
            lines = (await events(gateway, alice, run_id)).splitlines()

    *logged, own = [json.loads(line) for line in lines if line]
    assert [event["seq"] for event in logged] == [0, 1]
    assert (own["code"], "seq" in own) == ("runner-unavailable", False)
    last = sse.rstrip("\n").split("\n\n")[-1]
    assert sse.count("id: ") == 2
    assert last.startswith("event: run.failed\ndata: ")
    assert json.loads(last.partition("data: ")[2])["code"] == "runner-unavailable"
