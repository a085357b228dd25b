"""Users' own API keys: written, never read, and nowhere in the clear."""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from tests.support.gateway import FERNET_KEY, gateway_settings, problem_of, run_gateway
from tests.support.pocketbase import PASSWORD, SUPERUSER_PASSWORD, run_pocketbase

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

KEY = "/opencode/key"


def canary() -> str:
    return f"sk-canary-{secrets.token_hex(12)}"


async def set_key(gateway: RunningGateway, user: User, key: object) -> tuple[int, dict[str, Any]]:
    async with gateway.request("PUT", KEY, user=user, json={"api_key": key}) as response:
        if response.status != 200:
            return response.status, await problem_of(response)
        return response.status, await response.json()


async def key_status(gateway: RunningGateway, user: User) -> dict[str, Any]:
    async with gateway.request("GET", KEY, user=user) as response:
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        status: dict[str, Any] = await response.json()
        return status


async def key_of_a_run(gateway: RunningGateway, runner: FakeRunner, user: User) -> str | None:
    async with gateway.stream(user) as response:
        assert response.status == 200, await response.text()
        await response.read()
    key: str | None = runner.started[-1].get("key")
    return key


def files_with(directory: Path, needle: str) -> list[str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if needle.encode() in path.read_bytes()]


async def test_a_key_can_be_set_seen_to_be_set_and_removed(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Runs use the key that was set; reading it back shows four characters at most."""
    key = canary()
    assert await key_status(gateway, alice) == {"set": False, "last4": None}
    assert await key_of_a_run(gateway, runner, alice) is None

    assert await set_key(gateway, alice, f" {key} ") == (200, {"set": True, "last4": key[-4:]})
    assert await key_status(gateway, alice) == {"set": True, "last4": key[-4:]}
    assert await key_of_a_run(gateway, runner, alice) == key
    assert pocketbase.stored_key(alice).startswith("enc:v1:")

    async with gateway.request("DELETE", KEY, user=alice) as response:
        assert response.status == 204
    assert await key_status(gateway, alice) == {"set": False, "last4": None}
    assert await key_of_a_run(gateway, runner, alice) is None


@pytest.mark.parametrize(
    "bad", ["", "  ", "a b", "sk-ü", "sk\nx", "x" * 1001, "enc:v1:abc", None, 5, ["x"]]
)
async def test_what_can_be_no_key_is_refused_without_repeating_it(
    gateway: RunningGateway, alice: User, bad: object
) -> None:
    """422, and the value is not in the answer."""
    status, problem = await set_key(gateway, alice, bad)

    assert (status, problem["code"]) == (422, "invalid-field")
    assert "x" * 1001 not in str(problem)
    assert "sk" not in str(problem)


async def test_short_keys_show_nothing(gateway: RunningGateway, alice: User) -> None:
    """Four characters of eight would be half of it."""
    assert await set_key(gateway, alice, "12345678") == (200, {"set": True, "last4": None})


async def test_the_longest_key_fits(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Encrypted it is longer, and still can be stored."""
    key = "k" * 1000

    assert (await set_key(gateway, alice, key))[0] == 200
    assert await key_of_a_run(gateway, runner, alice) == key


async def test_keys_belong_to_their_user(
    gateway: RunningGateway, runner: FakeRunner, pocketbase: RunningPocketBase, alice: User
) -> None:
    """Nobody works with somebody else's key."""
    bob = pocketbase.new_user("Bob")
    await set_key(gateway, alice, "sk-of-alice-0001")
    await set_key(gateway, bob, "sk-of-bob-000002")

    assert await key_of_a_run(gateway, runner, alice) == "sk-of-alice-0001"
    assert await key_of_a_run(gateway, runner, bob) == "sk-of-bob-000002"


async def test_a_key_typed_in_by_an_admin_never_reaches_the_disk(
    tmp_path: Path, runner: FakeRunner
) -> None:
    """Sealed before it is written, used in the first run, then encrypted like any other."""
    with run_pocketbase(tmp_path) as pocketbase:
        alice, typed = pocketbase.new_user(), canary()
        pocketbase.change(alice, api_key=typed)
        with_key = canary()
        bob = pocketbase.new_user("Bob", api_key=with_key)
        assert pocketbase.stored_key(alice).startswith("enc:seal:")
        assert pocketbase.stored_key(bob).startswith("enc:seal:")

        settings = gateway_settings(pocketbase, runner_url=runner.url)
        async with run_gateway(settings) as gateway:
            assert await key_of_a_run(gateway, runner, alice) == typed
            assert await key_status(gateway, bob) == {"set": True, "last4": with_key[-4:]}
            assert pocketbase.stored_key(alice).startswith("enc:v1:")
            assert await key_of_a_run(gateway, runner, alice) == typed

        # Changing something else leaves the key alone.
        pocketbase.change(alice, name="Alix")
        assert pocketbase.stored_key(alice).startswith("enc:v1:")
        assert files_with(tmp_path, typed) == []
    for key in (typed, with_key):
        assert files_with(tmp_path, key) == []


async def test_without_a_sealing_key_no_key_can_be_typed_in(tmp_path: Path) -> None:
    """Fail closed: the save is refused and says why; the rest of the record can be saved."""
    with run_pocketbase(tmp_path, sealing=False) as pocketbase:
        alice, typed, admin = pocketbase.new_user(), canary(), pocketbase.superuser()
        path = f"/api/collections/users/records/{alice.id}"

        status, answer = pocketbase.call("PATCH", path, {"api_key": typed}, token=admin)

        assert status == 400
        assert "KEY_SEALING_KEY_FILE" in answer["message"]
        pocketbase.change(alice, name="Alix")
        assert pocketbase.stored_key(alice) == ""
    assert files_with(tmp_path, typed) == []


async def test_keys_that_cannot_be_decrypted_are_told(
    gateway: RunningGateway, pocketbase: RunningPocketBase, alice: User
) -> None:
    """402 with its own code: the caller has to set the key again."""
    foreign = Fernet(Fernet.generate_key()).encrypt(b"sk-x").decode()
    seal = base64.b64encode(b"n" * 12 + AESGCM(b"k" * 32).encrypt(b"n" * 12, b"sk-x", None))
    for stored in (f"enc:v1:{foreign}", "enc:v1:x", f"enc:seal:{seal.decode()}", "enc:seal:ä"):
        pocketbase.change(alice, api_key=stored)

        async with gateway.stream(alice) as response:
            problem = await problem_of(response)

        assert (response.status, problem["code"]) == (402, "key-unreadable")
        assert await key_status(gateway, alice) == {"set": True, "last4": None}


async def test_encryption_keys_rotate(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """A key encrypted with an older key is read, and encrypted with the newest from then on."""
    async with run_gateway(gateway_settings(pocketbase, runner_url=runner.url)) as gateway:
        await set_key(gateway, alice, "sk-of-alice-0001")
    newest = Fernet.generate_key().decode()
    rotated = gateway_settings(
        pocketbase,
        runner_url=runner.url,
        key_encryption_keys=(SecretStr(newest), SecretStr(FERNET_KEY)),
    )
    async with run_gateway(rotated) as gateway:
        assert await key_of_a_run(gateway, runner, alice) == "sk-of-alice-0001"

    stored = pocketbase.stored_key(alice).removeprefix("enc:v1:")
    assert Fernet(newest).decrypt(stored.encode()) == b"sk-of-alice-0001"


def test_the_field_is_out_of_its_owners_reach(pocketbase: RunningPocketBase, alice: User) -> None:
    """PocketBase neither shows `api_key` to its owner nor takes it from them."""
    pocketbase.change(alice, api_key="sk-of-the-admin-01")
    path = f"/api/collections/users/records/{alice.id}"

    seen = pocketbase.must("GET", f"{path}?fields=*,api_key", token=alice.token)
    pocketbase.call("PATCH", path, {"api_key": "mine", "name": "A"}, token=alice.token)
    status, _ = pocketbase.call("GET", f"{path}?filter=api_key!=''", token=alice.token)

    assert "api_key" not in seen
    assert pocketbase.stored_key(alice).startswith("enc:seal:")
    assert status == 200  # a view ignores filters
    searched = "/api/collections/users/records?filter=api_key!=%27%27"
    assert pocketbase.call("GET", searched, token=alice.token)[0] == 400


def test_nobody_registers_alone(pocketbase: RunningPocketBase) -> None:
    """Accounts are made by admins."""
    body = {"email": "x@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD}

    status, _ = pocketbase.call("POST", "/api/collections/users/records", body)

    assert status == 403


async def test_models_are_what_the_caller_may_use(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """Models that need a key are for those who have one, their own or the operator's."""

    async def usable() -> tuple[str, list[str]]:
        async with gateway.request("GET", "/opencode/models", user=alice) as response:
            body = await response.json()
            return body["default"], [model["id"] for model in body["models"]]

    few = ("demo/tools", ["demo/tools"])
    all_of_them = ("openai/gpt-5", ["openai/gpt-5", "demo/tools"])
    assert await usable() == few
    await set_key(gateway, alice, "sk-of-alice-0001")
    assert await usable() == all_of_them
    async with gateway.request("DELETE", KEY, user=alice) as response:
        assert response.status == 204
    assert await usable() == few
    runner.operator_key = True
    async with asyncio.timeout(10):  # what the runner offers is remembered for a moment
        while await usable() != all_of_them:
            await asyncio.sleep(0.1)


async def test_a_superuser_token_that_is_gone_is_renewed(
    tmp_path: Path, runner: FakeRunner
) -> None:
    """When PocketBase forgets the service account's token, the gateway signs in again."""
    with run_pocketbase(tmp_path) as pocketbase:
        alice = pocketbase.new_user()
        settings = gateway_settings(pocketbase, runner_url=runner.url)
        async with run_gateway(settings) as gateway:
            await set_key(gateway, alice, "sk-of-alice-0001")
            admin = pocketbase.superuser()
            # The same password anew: all tokens made before are void.
            [root] = pocketbase.must("GET", "/api/collections/_superusers/records", token=admin)[
                "items"
            ]
            again = {"password": SUPERUSER_PASSWORD, "passwordConfirm": SUPERUSER_PASSWORD}
            path = f"/api/collections/_superusers/records/{root['id']}"
            pocketbase.must("PATCH", path, again, token=admin)
            # Open rules would show the record to a guest, without its key.
            pocketbase.must(
                "PATCH", "/api/collections/users", {"viewRule": ""}, token=pocketbase.superuser()
            )

            assert await key_of_a_run(gateway, runner, alice) == "sk-of-alice-0001"
