"""Who may come in: only users of PocketBase, and only as long as PocketBase says so."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.gateway import changes_are_heard, gateway_settings, problem_of, run_gateway
from tests.support.pocketbase import PASSWORD, run_pocketbase

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

MODELS = "/opencode/models"


async def status_with(gateway: RunningGateway, authorization: str) -> int:
    headers = {"Authorization": authorization} if authorization else {}
    async with gateway.request("GET", MODELS, headers=headers) as response:
        if response.status == 401:
            assert (await problem_of(response))["code"].startswith("token-")
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        return response.status


async def until_refused(gateway: RunningGateway, token: str) -> None:
    async with asyncio.timeout(10):
        while await status_with(gateway, token) != 401:
            await asyncio.sleep(0.02)


def forged(token: str, **changed: object) -> str:
    """Return *token* with other claims and the old signature."""
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "==="))
    body = json.dumps({**claims, **changed}).encode()
    return f"{head}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}.{signature}"


async def test_tokens_come_bare_or_as_bearer(gateway: RunningGateway, alice: User) -> None:
    """PocketBase's SDKs send the token alone, everybody else as Bearer."""
    assert await status_with(gateway, alice.token) == 200
    assert await status_with(gateway, f"Bearer {alice.token}") == 200
    assert await status_with(gateway, f"bearer   {alice.token}") == 200


async def test_what_is_no_token_of_a_user_is_refused(
    gateway: RunningGateway, pocketbase: RunningPocketBase, alice: User
) -> None:
    """No token, nonsense, forged and expired ones, and tokens of anybody else than users."""
    bob = pocketbase.new_user("Bob")
    file_token = pocketbase.must("POST", "/api/files/token", token=alice.token)["token"]
    for bad in (
        "",
        "Bearer",
        "Basic eDp5",
        "nonsense",
        "a.b.c",
        "ä.b.c",
        alice.token[:-4] + "AAAA",
        forged(alice.token, id=bob.id),
        forged(alice.token, exp=1),
        forged(alice.token, exp=float("inf")),
        forged(alice.token, exp="x"),
        forged(alice.token, id="../x"),
        pocketbase.superuser(),
        file_token,
        "x" * 10_000,
    ):
        assert await status_with(gateway, bad) == 401, bad


async def test_tokens_of_other_collections_are_refused_whatever_the_rules_are(
    tmp_path: Path, runner: FakeRunner
) -> None:
    """An admin who opens or closes the rules of `users` changes nothing about who may come in."""
    with run_pocketbase(tmp_path) as pocketbase:
        admin = pocketbase.superuser()
        pocketbase.must("POST", "/api/collections", {"name": "others", "type": "auth"}, token=admin)
        body = {"email": "o@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD}
        pocketbase.must("POST", "/api/collections/others/records", body, token=admin)
        other = pocketbase.sign_in("others", "o@example.com")
        users = "/api/collections/users"
        for rule in ("id = @request.auth.id", "", None):
            pocketbase.must("PATCH", users, {"listRule": rule, "viewRule": rule}, token=admin)
            alice = pocketbase.new_user()
            # A token that lasts and can't be refreshed, as for a program.
            lasting = pocketbase.must(
                "POST", f"{users}/impersonate/{alice.id}", {"duration": 3600}, token=admin
            )["token"]
            settings = gateway_settings(pocketbase, runner_url=runner.url)
            async with run_gateway(settings) as gateway:
                assert await status_with(gateway, alice.token) == 200
                assert await status_with(gateway, lasting) == 200
                assert await status_with(gateway, other) == 401
                assert await status_with(gateway, admin) == 401
                assert await status_with(gateway, alice.token[:-4] + "AAAA") == 401


@pytest.mark.parametrize("change", ["password", "deletion"])
async def test_a_revoked_token_is_useless_at_once(
    gateway: RunningGateway, pocketbase: RunningPocketBase, alice: User, change: str
) -> None:
    """PocketBase tells of the change, and what was remembered is forgotten long before its time."""
    await changes_are_heard(gateway)
    assert await status_with(gateway, alice.token) == 200

    if change == "password":
        pocketbase.change(alice, password="another-one", passwordConfirm="another-one")
    else:
        path = f"/api/collections/users/records/{alice.id}"
        pocketbase.must("DELETE", path, token=pocketbase.superuser())

    await until_refused(gateway, alice.token)


async def test_a_revoked_token_is_useless_after_the_cache_time(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """Even where no news come through, trust ends with `GATEWAY_TOKEN_CACHE_S`."""
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_token_cache_s=0.3)
    async with run_gateway(settings) as gateway:
        assert await status_with(gateway, alice.token) == 200
        pocketbase.change(alice, password="another-one", passwordConfirm="another-one")
        await until_refused(gateway, alice.token)


async def test_a_new_name_is_used_at_once(
    gateway: RunningGateway, pocketbase: RunningPocketBase, alice: User
) -> None:
    """What is remembered of a user follows the record."""
    await changes_are_heard(gateway)
    async with gateway.stream(alice) as response:
        assert "Älice Ünger" in await response.text()

    pocketbase.change(alice, name="Alix")

    text = ""
    async with asyncio.timeout(10):
        while "User Alix -" not in text:
            async with gateway.stream(alice) as response:
                text = await response.text()


async def test_nobody_is_refused_because_pocketbase_is_away(
    tmp_path: Path, runner: FakeRunner
) -> None:
    """503 and when to try again; known callers are known again when it is back."""
    with run_pocketbase(tmp_path) as pocketbase:
        alice = pocketbase.new_user()
        port = int(pocketbase.url.rpartition(":")[2])
        settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_token_cache_s=0.001)
    async with run_gateway(settings) as gateway:
        for _ in range(2):
            async with gateway.request("GET", MODELS, user=alice) as response:
                problem = await problem_of(response)
            assert (response.status, problem["code"]) == (503, "pocketbase-unavailable")
            assert response.headers["Retry-After"]

        with run_pocketbase(tmp_path, port=port):
            assert await status_with(gateway, alice.token) == 200
            await changes_are_heard(gateway)


async def test_the_gateway_starts_and_recovers_on_its_own(
    tmp_path: Path, runner: FakeRunner
) -> None:
    """PocketBase comes, goes and comes back: health and news of changes follow by themselves."""
    with run_pocketbase(tmp_path) as pocketbase:
        port = int(pocketbase.url.rpartition(":")[2])
        settings = gateway_settings(pocketbase, runner_url=runner.url)
    async with run_gateway(settings) as gateway:
        for _ in range(2):
            async with gateway.request("GET", "/opencode/health") as response:
                assert response.status == 503
                assert response.headers["Retry-After"]
                assert (await response.json())["pocketbase"] == {"status": "down"}
            with run_pocketbase(tmp_path, port=port) as pocketbase:
                async with asyncio.timeout(20):
                    await changes_are_heard(gateway)
                async with gateway.request("GET", "/opencode/health") as response:
                    assert response.status == 200
                alice = pocketbase.new_user()
                assert await status_with(gateway, alice.token) == 200
                pocketbase.change(alice, password="another-one", passwordConfirm="another-one")
                await until_refused(gateway, alice.token)
