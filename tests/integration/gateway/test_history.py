"""Every run has a record in PocketBase, whoever was away meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from gateway.keys import SETTINGS
from runner.contract.problems import QueueFull
from tests.support.fake_runner import FINISHED, STARTED, Stage, playing, run_fake_runner, text
from tests.support.gateway import gateway_settings, run_gateway
from tests.support.pocketbase import free_port, run_pocketbase
from tests.support.processes import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

RUNS = "/opencode/runs"
RECORDS = "/api/collections/runs/records"
USAGE = {
    "input_tokens": 10,
    "output_tokens": 20,
    "cached_tokens": 3,
    "reasoning_tokens": 4,
    "cost_usd": 0.25,
}
PROMPT = "Grüße " * 100


async def started(gateway: RunningGateway, user: User, prompt: str = PROMPT) -> str:
    async with gateway.request("POST", RUNS, user=user, json={"prompt": prompt}) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


def records(pocketbase: RunningPocketBase, user: User) -> list[dict[str, Any]]:
    """Return a user's records as PocketBase shows them to that user, newest first."""
    path = f"{RECORDS}?sort=-started,-id&perPage=200"
    found: list[dict[str, Any]] = pocketbase.must("GET", path, token=user.token)["items"]
    return found


async def until_recorded(
    pocketbase: RunningPocketBase, user: User, count: int
) -> list[dict[str, Any]]:
    def all_ended() -> bool:
        found = records(pocketbase, user)
        return len(found) == count and all(record["ended"] for record in found)

    await eventually(all_ended, within_s=40)
    return records(pocketbase, user)


async def endless(stage: Stage) -> None:
    await stage.send(STARTED, text("Hallo"))
    await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["streamed", "detached"])
async def test_a_run_leaves_one_record(
    gateway: RunningGateway,
    runner: FakeRunner,
    pocketbase: RunningPocketBase,
    alice: User,
    how: str,
) -> None:
    """Read or not, its end and what it cost are recorded, under its own id."""
    runner.script = playing(STARTED, text("x"), {**FINISHED, "usage": USAGE})

    if how == "streamed":
        async with gateway.stream(alice, prompt=PROMPT) as response:
            await response.read()
            run_id = response.headers["X-Run-ID"]
    else:
        run_id = await started(gateway, alice)
    [record] = await until_recorded(pocketbase, alice, 1)

    assert record["id"] == run_id
    assert record["user"] == alice.id
    assert record["prompt"] == PROMPT[:200]
    assert (record["status"], record["error_code"]) == ("finished", "")
    assert record["model"] == "demo/tools"
    assert {name: record[name] for name in USAGE} == USAGE
    assert (record["queued_s"], record["duration_s"]) == (0.25, 0.5)


async def test_failures_and_cancellations_are_recorded(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """With the code that the run failed with."""
    runner.script = playing(STARTED, {"type": "run.failed", "code": "timeout", "message": "x"})
    failed = await started(gateway, alice, "eins")
    runner.script = endless
    cancelled = await started(gateway, alice, "zwei")
    async with gateway.request("DELETE", f"{RUNS}/{cancelled}", user=alice) as response:
        assert response.status == 200
    found = {record["id"]: record for record in await until_recorded(pocketbase, alice, 2)}

    assert (found[failed]["status"], found[failed]["error_code"]) == ("failed", "timeout")
    assert found[cancelled]["status"] == "cancelled"


@pytest.mark.parametrize(("policy", "kept"), [("none", 0), ("preview", 200), ("full", len(PROMPT))])
async def test_prompts_are_kept_as_far_as_the_operator_allows(
    runner: FakeRunner, pocketbase: RunningPocketBase, alice: User, policy: str, kept: int
) -> None:
    """In PocketBase, and on the disk on the way there."""
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_store_prompts=policy)
    async with run_gateway(settings) as gateway:
        await started(gateway, alice)
        [record] = await until_recorded(pocketbase, alice, 1)

    assert record["prompt"] == PROMPT[:kept]


async def test_records_are_their_owners_alone(
    gateway: RunningGateway, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Others don't see them, and nobody but a superuser writes them."""
    run_id = await started(gateway, alice)
    await until_recorded(pocketbase, alice, 1)
    mallory = pocketbase.new_user("Mallory")
    path = f"{RECORDS}/{run_id}"

    assert pocketbase.call("GET", path, token=alice.token)[0] == 200
    assert pocketbase.call("GET", path, token=mallory.token)[0] == 404
    assert pocketbase.call("GET", path)[0] == 404
    assert records(pocketbase, mallory) == []
    assert pocketbase.call("PATCH", path, {"cost_usd": 0}, token=alice.token)[0] == 403
    assert pocketbase.call("DELETE", path, token=alice.token)[0] == 403
    body = {"status": "finished", "started": "2026-01-01 00:00:00Z", "user": alice.id}
    assert pocketbase.call("POST", RECORDS, body, token=alice.token)[0] == 403


async def test_a_users_records_go_with_the_user(
    gateway: RunningGateway, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Deleting a user deletes what they did."""
    run_id = await started(gateway, alice)
    await until_recorded(pocketbase, alice, 1)

    path = f"/api/collections/users/records/{alice.id}"
    assert pocketbase.call("DELETE", path, token=pocketbase.superuser())[0] == 204

    found = pocketbase.call("GET", f"{RECORDS}/{run_id}", token=pocketbase.superuser())
    assert found[0] == 404


async def test_the_list_is_newest_first_a_page_at_a_time(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """What is on is told live, what is past from the records."""
    run_ids = [await started(gateway, alice, f"Nummer {number}") for number in range(4)]
    runner.script = endless
    run_ids.append(await started(gateway, alice, "Nummer 4"))
    await eventually(lambda: len(records(pocketbase, alice)) == 5)
    await eventually(lambda: sum(bool(r["ended"]) for r in records(pocketbase, alice)) == 4)

    pages = []
    for page in (1, 2, 3):
        query = {"page": page, "per_page": 2}
        async with gateway.request("GET", RUNS, user=alice, params=query) as response:
            pages.append(await response.json())

    runs = [run for page in pages for run in page["items"]]
    assert [page["total"] for page in pages] == [5, 5, 5]
    assert [len(page["items"]) for page in pages] == [2, 2, 1]
    assert [run["id"] for run in runs] == run_ids[::-1]
    assert [run["prompt"] for run in runs] == [f"Nummer {number}" for number in (4, 3, 2, 1, 0)]
    assert [run["status"] for run in runs] == ["running", *["finished"] * 4]
    assert (runs[0]["phase"], runs[0]["last_seq"]) == ("model", 1)
    for bad in ("page=0", "per_page=101", "page=x", "pag=1"):
        async with gateway.request("GET", f"{RUNS}?{bad}", user=alice) as response:
            assert response.status == 422


async def test_a_run_the_runner_has_forgotten_is_still_known(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Its record answers; its events are gone."""
    run_id = await started(gateway, alice)
    await until_recorded(pocketbase, alice, 1)
    runner.runs.clear()

    async with gateway.request("GET", f"{RUNS}/{run_id}", user=alice) as response:
        run = await response.json()
    async with gateway.request("DELETE", f"{RUNS}/{run_id}", user=alice) as response:
        assert (response.status, (await response.json())["status"]) == (200, "finished")
    async with gateway.request("GET", f"{RUNS}/{run_id}/events", user=alice) as response:
        assert response.status == 404

    assert (run["status"], run["phase"], run["last_seq"]) == ("finished", "ended", None)


async def test_a_run_the_runner_never_heard_of_has_failed(
    runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """A runner that lost everything leaves no record that says `running`."""
    runner.script = endless
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_reconcile_s=0.2)
    async with run_gateway(settings) as gateway:
        await started(gateway, alice)
        runner.runs.clear()
        [record] = await until_recorded(pocketbase, alice, 1)

    assert (record["status"], record["error_code"]) == ("failed", "runner-restarted")


async def test_what_ended_while_no_gateway_was_there_is_recorded_by_the_next(
    runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """No record stays `running` because the gateway that wrote it is gone."""
    runner.script = endless
    settings = gateway_settings(pocketbase, runner_url=runner.url)
    async with run_gateway(settings) as gateway:
        run_id = await started(gateway, alice)
        await eventually(lambda: records(pocketbase, alice))
    await runner.runs[run_id].end(FINISHED)

    another = gateway_settings(pocketbase, runner_url=runner.url)
    async with run_gateway(another):
        [record] = await until_recorded(pocketbase, alice, 1)

    assert (record["id"], record["status"]) == (run_id, "finished")


async def test_records_wait_on_disk_while_pocketbase_is_away(
    tmp_path: Path, runner: FakeRunner
) -> None:
    """Runs end, and others begin, without PocketBase; even the gateway ends: no record is lost."""
    port, pocketbase_is_away = free_port(), asyncio.Event()

    async def through_the_outage(stage: Stage) -> None:
        await stage.send(STARTED)
        await pocketbase_is_away.wait()
        await stage.send({**FINISHED, "usage": USAGE})

    runner.script = through_the_outage
    with run_pocketbase(tmp_path, port=port) as pocketbase:
        alice = pocketbase.new_user("Alice")
        settings = gateway_settings(
            pocketbase,
            runner_url=runner.url,
            gateway_token_cache_s=300,
            gateway_allow_anonymous=True,
        )
        first = run_gateway(settings)
        gateway = await first.__aenter__()
        expected = {}
        for number in range(20):
            run_id = await started(gateway, alice, f"vorher {number}")
            expected[run_id] = (f"vorher {number}", "finished")
    pocketbase_is_away.set()
    # PocketBase is gone; with no key to be read, only callers without an account can run.
    anonymous = {}
    for number in range(20):
        if number % 2:
            failed = {"type": "run.failed", "code": "timeout", "message": "x"}
            runner.script = playing(STARTED, failed)
        else:
            runner.script = playing(STARTED, {**FINISHED, "usage": USAGE})
        body = {"prompt": f"während {number}"}
        async with gateway.request("POST", RUNS, json=body) as response:
            run_id = (await response.json())["id"]
        anonymous[run_id] = (body["prompt"], "failed" if number % 2 else "finished")
    spool = settings.data_dir / "spool"

    def all_spooled() -> bool:
        told = b"".join(path.read_bytes() for path in spool.glob("*.ndjson"))
        return told.count(b'"op":"ended"') >= 40

    await eventually(all_spooled)
    await first.__aexit__(None, None, None)
    assert list(spool.iterdir())

    with run_pocketbase(tmp_path, port=port) as pocketbase:
        async with run_gateway(settings):

            def found() -> dict[str, Any]:
                path = f"{RECORDS}?perPage=100&filter=ended!=''"
                path = path.replace("!=''", "%21%3D%27%27")
                items = pocketbase.must("GET", path, token=pocketbase.superuser())["items"]
                return {item["id"]: item for item in items}

            await eventually(lambda: len(found()) == 40, within_s=40)
            records = found()
            await eventually(lambda: not [p for p in spool.iterdir() if p.stat().st_size])
        assert list(spool.iterdir()) == []

    told = {run_id: (r["prompt"], r["status"]) for run_id, r in records.items()}
    assert told == expected | anonymous
    finished = [r for r in records.values() if r["prompt"].endswith(" 0")]
    assert all({name: r[name] for name in USAGE} == USAGE for r in finished)


async def test_a_run_whose_answer_got_lost_is_found(
    runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Asked for, accepted, and nobody there to hear it: the next gateway records it."""
    settings = gateway_settings(pocketbase, runner_url=runner.url)
    spool = settings.data_dir / "spool"
    spool.mkdir(parents=True)
    fields = {
        "user": alice.id,
        "prompt": "x",
        "status": "running",
        "started": "2026-01-01T00:00:00Z",
    }
    for run_id in ("a" * 15, "b" * 15, "c" * 15):
        intent = spool / f"{run_id}.asked"
        intent.write_text(json.dumps(fields), encoding="utf-8")
        os.utime(intent, (0, 0))
    (spool / f"{'c' * 15}.asked").write_bytes(b'{"user"')
    body = {"run_id": "a" * 15, "subject": alice.id, "prompt": "x"}
    stage = runner.runs["a" * 15] = Stage(runner, body)
    await stage.send(STARTED, FINISHED)

    async with run_gateway(settings):
        [record] = await until_recorded(pocketbase, alice, 1)
        await eventually(lambda: not list(spool.glob("[ab]*.asked")))

    assert (record["id"], record["status"], record["prompt"]) == ("a" * 15, "finished", "x")


async def test_what_was_refused_leaves_nothing(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """No record of a run that there never was, and nothing on disk."""
    runner.refusal = QueueFull()
    async with gateway.stream(alice) as response:
        assert response.status == 503
    runner.refusal = None
    run_id = await started(gateway, alice)
    [record] = await until_recorded(pocketbase, alice, 1)

    assert record["id"] == run_id
    assert not list((gateway.app[SETTINGS].data_dir / "spool").glob("*.asked"))


async def test_a_spool_that_was_cut_off_tells_what_is_whole(
    runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Half a line, or one that is no entry, hides nothing of the rest."""
    settings = gateway_settings(pocketbase, runner_url=runner.url)
    spool = settings.data_dir / "spool"
    spool.mkdir(parents=True)
    fields = {"user": alice.id, "status": "finished", "started": "2026-01-01T00:00:00Z"}
    whole = {"op": "ended", "id": "a" * 15, "fields": {**fields, "ended": "2026-01-01T00:00:01Z"}}
    gone = {"op": "began", "id": "b" * 15, "fields": {**fields, "user": "nobodyhasthisid"}}
    lines = [b"garbage", b"[1]", json.dumps(gone).encode(), json.dumps(whole).encode(), b'{"op":"b']
    (spool / "left.ndjson").write_bytes(b"\n".join(lines))

    async with run_fake_runner(), run_gateway(settings):
        [record] = await until_recorded(pocketbase, alice, 1)

    assert (record["id"], record["status"]) == ("a" * 15, "finished")
    assert list(spool.iterdir()) == []
