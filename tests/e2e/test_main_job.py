"""The main job through everything: PocketBase, gateway, runner, OpenCode, a scripted provider."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import unused_port

from tests.support.fake_provider import Plan, fake_provider
from tests.support.processes import alive, descendants, eventually, files_with, mentioning
from tests.support.stack import start_stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aiohttp import ClientResponse

    from tests.support.fake_provider import FakeProvider, Seen
    from tests.support.stack import StackProcess

pytestmark = pytest.mark.timeout(300)

OPERATOR_KEY = "sk-operator-77aa01"
ADMIN_PASSWORD = "only-for-this-test-9"
PIECES = [f"{n}:ü🌍{'é' * (n % 3)} " for n in range(50)]


@dataclass(kw_only=True)
class Member:
    """A signed-in user."""

    origin: str
    id: str
    token: str
    http: ClientSession

    def headers(self, accept: str = "text/plain") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": accept}

    @asynccontextmanager
    async def stream(
        self, prompt: str, accept: str = "text/plain"
    ) -> AsyncIterator[ClientResponse]:
        """Send a prompt; leaving the block disconnects."""
        async with self.http.post(
            f"{self.origin}/opencode/stream", json={"prompt": prompt}, headers=self.headers(accept)
        ) as response:
            assert response.status == 200, await response.text()
            yield response


@pytest.fixture(scope="module")
def provider_port() -> int:
    return unused_port()


@pytest.fixture(scope="module")
def stack(provider_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
    """A stack whose provider is scripted."""
    with start_stack(
        tmp_path_factory.mktemp("main-job") / "data",
        OPENAI_API_KEY=OPERATOR_KEY,
        OPENAI_BASE_URL=f"http://127.0.0.1:{provider_port}/v1",
        OPENAI_API="chat",
        MODELS="openai/scripted",
        PB_SUPERUSER_PASSWORD=ADMIN_PASSWORD,
        LOG_LEVEL="debug",
    ) as running:
        running.wait_until_up()
        yield running


@pytest.fixture
async def provider(provider_port: int) -> AsyncIterator[FakeProvider]:
    async with fake_provider(provider_port) as serving:
        yield serving


@asynccontextmanager
async def member(stack: StackProcess, name: str) -> AsyncIterator[Member]:
    """Make a user as the admin would, and sign in as that user."""
    password = secrets.token_hex(8)
    email = f"{name.lower()}-{secrets.token_hex(4)}@example.com"
    async with ClientSession(base_url=stack.origin, timeout=ClientTimeout(total=120)) as http:
        admin = await _sign_in(http, "_superusers", "admin@example.com", ADMIN_PASSWORD)
        user = {"email": email, "password": password, "passwordConfirm": password, "name": name}
        async with http.post(
            "/api/collections/users/records",
            json=user | {"verified": True},
            headers={"Authorization": admin["token"]},
        ) as response:
            assert response.status == 200, await response.text()
        signed_in = await _sign_in(http, "users", email, password)
        yield Member(
            origin=stack.origin, id=signed_in["record"]["id"], token=signed_in["token"], http=http
        )


async def _sign_in(http: ClientSession, collection: str, email: str, password: str) -> dict:  # type: ignore[type-arg]
    async with http.post(
        f"/api/collections/{collection}/auth-with-password",
        json={"identity": email, "password": password},
    ) as response:
        assert response.status == 200, await response.text()
        return await response.json()  # type: ignore[no-any-return]


def text_in(raw: bytes, accept: str) -> str:
    """Return the answer's text in a whole stream, as a reader of that format sees it."""
    text = raw.decode()
    if accept == "text/plain":
        return text.removesuffix("\n[✔ User Mia - Fertig!]\n")
    lines = text.split("\n")
    if accept == "text/event-stream":
        lines = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    events = [json.loads(line) for line in lines if line.strip()]
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "run.finished"
    return "".join(event["text"] for event in events if event["type"] == "text.delta")


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream", "application/x-ndjson"])
async def test_pieces_arrive_as_they_are_sent(
    stack: StackProcess, provider: FakeProvider, accept: str
) -> None:
    """Every piece is read before the provider sends the next: nothing on the way holds back."""
    gate = asyncio.Semaphore(0)
    provider.plan = Plan(pieces=PIECES, gate=gate)
    raw = b""
    async with member(stack, "Mia") as mia, mia.stream("Hi", accept) as response:
        for piece in PIECES:
            gate.release()
            wanted = piece if accept == "text/plain" else json.dumps(piece, ensure_ascii=False)
            while wanted.encode() not in raw:
                raw += await response.content.readany()
        raw += await response.content.read()

    assert text_in(raw, accept) == "".join(PIECES)


async def test_each_user_is_billed_on_the_right_key_and_it_stays_secret(
    stack: StackProcess, provider: FakeProvider
) -> None:
    """Own key, else the operator's; neither is in any process, file or log while in use."""
    canary = f"sk-canary-{secrets.token_hex(8)}"
    gate = asyncio.Semaphore(0)
    provider.plan = Plan(gate=gate)
    async with member(stack, "Mia") as mia, member(stack, "Noah") as noah:
        async with mia.http.put(
            "/opencode/key", json={"api_key": canary}, headers=mia.headers()
        ) as response:
            assert response.status == 200
        async with mia.stream("with my own") as own, noah.stream("with the operator's") as other:
            await eventually(lambda: len(provider.requests) == 2, within_s=60)
            keys = {_prompt_of(seen): seen.authorization for seen in provider.requests}
            assert keys == {
                "with my own": f"Bearer {canary}",
                "with the operator's": f"Bearer {OPERATOR_KEY}",
            }
            for secret in (canary, OPERATOR_KEY):
                assert mentioning(secret) == []
                assert files_with(secret, stack.data_dir.parent) == []
            for _ in range(4):
                gate.release()
            assert (await own.read()).endswith("\n[✔ User Mia - Fertig!]\n".encode())
            assert (await other.read()).endswith("\n[✔ User Noah - Fertig!]\n".encode())


def _prompt_of(seen: Seen) -> str:
    content = seen.body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


async def test_a_key_typed_by_an_admin_is_used_and_never_on_disk(
    stack: StackProcess, provider: FakeProvider
) -> None:
    """Through PocketBase's own API, as its admin UI does it."""
    canary = f"sk-typed-{secrets.token_hex(8)}"
    async with member(stack, "Mia") as mia:
        admin = await _sign_in(mia.http, "_superusers", "admin@example.com", ADMIN_PASSWORD)
        async with mia.http.patch(
            f"/api/collections/users/records/{mia.id}",
            json={"api_key": canary},
            headers={"Authorization": admin["token"]},
        ) as response:
            assert response.status == 200
        async with mia.stream("Hi") as response:
            await response.read()

    assert provider.requests[-1].authorization == f"Bearer {canary}"
    assert files_with(canary, stack.data_dir.parent) == []


async def test_failures_are_told_in_every_format(
    stack: StackProcess, provider: FakeProvider
) -> None:
    """A refused key: `[ERROR] …` in plain text, run.failed with its code elsewhere."""
    provider.plan = Plan(status=401)
    async with member(stack, "Mia") as mia:
        async with mia.stream("Hi") as response:
            assert (await response.text()).endswith(
                "\n[ERROR] Der Anbieter lehnt den API-Schlüssel ab (Status 401)\n"
            )
        async with mia.stream("Hi", "application/x-ndjson") as response:
            last = json.loads((await response.read()).splitlines()[-1])
    assert (last["type"], last["code"]) == ("run.failed", "key-refused")


async def test_twenty_runs_that_end_anyhow_leave_nothing(
    stack: StackProcess, provider: FakeProvider
) -> None:
    """Finished, left by their readers, dropped by the provider: no process, no directory."""
    rng = random.Random(20)
    provider.plan = lambda seen: (
        Plan(pieces=["a", "b", "c"], drop_after=2)
        if "drop" in _prompt_of(seen)
        else Plan(pieces=["x"] * 20, interval_s=0.02)
    )
    quiet = set(descendants(stack.process.pid))
    sandboxes = stack.data_dir / "sandboxes"
    started: set[int] = set()

    async def one(user: Member, number: int) -> None:
        ending = ("finish", "drop", "leave")[number % 3]
        async with user.stream(ending, "application/x-ndjson") as response:
            if ending == "leave":
                async with asyncio.timeout(60):
                    await asyncio.wait_for(response.content.readany(), 60)
                    await asyncio.sleep(rng.random())  # wherever the run is by then
                    started.update(set(descendants(stack.process.pid)) - quiet)
                return
            last = json.loads((await response.read()).splitlines()[-1])
            assert last["type"] == ("run.failed" if ending == "drop" else "run.finished"), last

    async with member(stack, "Mia") as mia, member(stack, "Noah") as noah:
        await asyncio.gather(*(one((mia, noah)[n % 2], n) for n in range(20)))

    assert started
    await eventually(lambda: list(sandboxes.iterdir()) == [], within_s=30)
    await eventually(lambda: alive(set(descendants(stack.process.pid)) - quiet) == [])
    assert alive(started - quiet) == []
    assert provider.open_streams == 0


async def test_sigterm_in_the_middle_of_a_run_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The stream is told; then no process and no sandbox directory is left."""
    async with fake_provider() as provider:
        provider.plan = Plan(pieces=["a", "b"], gate=asyncio.Semaphore(1))
        with start_stack(
            tmp_path_factory.mktemp("sigterm") / "data",
            OPENAI_API_KEY=OPERATOR_KEY,
            OPENAI_BASE_URL=provider.base_url,
            MODELS="openai/scripted",
            PB_SUPERUSER_PASSWORD=ADMIN_PASSWORD,
        ) as stack:
            await asyncio.to_thread(stack.wait_until_up)
            async with member(stack, "Mia") as mia, mia.stream("Hi") as response:
                assert await response.content.readany() == b"a"
                assert await asyncio.to_thread(stack.end) == 0
            assert stack.left_behind() == []
            assert list((stack.data_dir / "sandboxes").iterdir()) == []
