"""What a user has used, by day and in all: theirs alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fake_runner import FINISHED, STARTED, playing
from tests.support.gateway import gateway_settings, problem_of, run_gateway

if TYPE_CHECKING:
    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

USAGE = "/opencode/usage"
NOTHING = {
    "runs": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "cost_usd": 0,
}
USED = {
    "input_tokens": 10,
    "output_tokens": 20,
    "cached_tokens": 3,
    "reasoning_tokens": 4,
    "cost_usd": 0.25,
}


def record(pocketbase: RunningPocketBase, user: User, day: str, **fields: Any) -> None:
    body = {"user": user.id, "status": "finished", "started": f"{day} 23:59:59.999Z", **USED}
    path = "/api/collections/runs/records"
    pocketbase.must("POST", path, body | fields, token=pocketbase.superuser())


async def usage(gateway: RunningGateway, user: User, **query: str) -> dict[str, Any]:
    async with gateway.request("GET", USAGE, user=user, params=query) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def test_runs_are_summed_by_day_and_in_all(
    gateway: RunningGateway, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Latest day first; failed runs have used something too; others' runs are not there."""
    record(pocketbase, alice, "2026-01-31")
    record(pocketbase, alice, "2026-01-31", status="failed", input_tokens=5, cost_usd=0)
    record(pocketbase, alice, "2026-02-01")
    record(pocketbase, pocketbase.new_user(), "2026-02-01")

    found = await usage(gateway, alice)
    latest = await usage(gateway, alice, days="1")

    second = {"day": "2026-02-01", "runs": 1, **USED}
    first = {"day": "2026-01-31", "runs": 2, "input_tokens": 15, "output_tokens": 40}
    assert found["days"][0] == second
    assert first.items() <= found["days"][1].items()
    assert found["days"][1]["cost_usd"] == pytest.approx(0.25)
    assert (found["total"]["runs"], found["total"]["input_tokens"]) == (3, 25)
    assert found["total"]["cost_usd"] == pytest.approx(0.5)
    assert latest == {"total": found["total"], "days": [second]}


async def test_a_run_that_ends_is_in_the_sum(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """From nothing to what the runner said of it."""
    assert await usage(gateway, alice) == {"total": NOTHING, "days": []}
    runner.script = playing(STARTED, {**FINISHED, "usage": USED})

    async with gateway.stream(alice) as response:
        await response.read()

    async with asyncio.timeout(40):
        while (await usage(gateway, alice))["total"] != {"runs": 1, **USED}:
            await asyncio.sleep(0.05)


async def test_users_see_their_own_sums_in_pocketbase_and_admins_all(
    pocketbase: RunningPocketBase, alice: User
) -> None:
    """The views are records like any other; nobody can write them."""
    bob = pocketbase.new_user()
    record(pocketbase, alice, "2026-03-01")
    record(pocketbase, bob, "2026-03-01")

    for view in ("usage_by_day", "usage_by_user"):
        path = f"/api/collections/{view}/records"
        mine = pocketbase.must("GET", path, token=alice.token)["items"]
        all_users = pocketbase.must("GET", f"{path}?perPage=500", token=pocketbase.superuser())
        assert [item["user"] for item in mine] == [alice.id]
        assert {alice.id, bob.id} <= {item["user"] for item in all_users["items"]}
        assert pocketbase.call("GET", path)[1]["items"] == []
        assert pocketbase.call("POST", path, {}, token=alice.token)[0] >= 400


async def test_a_user_who_goes_takes_the_sums_along(pocketbase: RunningPocketBase) -> None:
    """Deleting a user stumbles over no view."""
    user = pocketbase.new_user()
    record(pocketbase, user, "2026-03-01")
    token = pocketbase.superuser()

    pocketbase.must("DELETE", f"/api/collections/users/records/{user.id}", token=token)

    found = pocketbase.must("GET", "/api/collections/usage_by_user/records", token=token)["items"]
    assert user.id not in [item["user"] for item in found]


async def test_what_cannot_be_asked_is_told(
    pocketbase: RunningPocketBase, runner: FakeRunner, gateway: RunningGateway, alice: User
) -> None:
    """Strange queries; callers whom no runs are recorded of."""
    for query in ({"days": "0"}, {"days": "x"}, {"months": "1"}):
        async with gateway.request("GET", USAGE, user=alice, params=query) as response:
            assert response.status == 422
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_allow_anonymous=True)
    async with run_gateway(settings) as open_to_all, open_to_all.request("GET", USAGE) as response:
        assert (await problem_of(response))["code"] == "token-required"
