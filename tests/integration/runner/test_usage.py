"""What a run has used is what its provider says, however the run ends."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession
from pydantic import SecretStr

from runner.contract import events
from runner.contract.events import Usage, UsageUpdated
from runner.credential_proxy.door import open_door
from runner.credential_proxy.forward import HttpUpstream, Patience
from runner.credential_proxy.grants import Grant
from runner.credential_proxy.upstreams import PATHS
from runner.credential_proxy.usage import Price
from tests.support.fake_provider import FakeProvider, Plan, fake_provider
from tests.support.runner import read_events, run_runner
from tests.support.scripted_agent import install

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runner.contract.events import RunEvent
    from runner.credential_proxy.upstreams import Api

USED = (100, 60, 20, 5)
USAGE = Usage(input_tokens=100, cached_tokens=60, output_tokens=20, reasoning_tokens=5)
COST = (40 * 1 + 60 * 0.5 + 20 * 2) / 1e6


class Caller:
    """OpenCode's part: calls at the door, and what the run was told about them."""

    def __init__(self, http: ClientSession, url: str, api: Api) -> None:
        self.http = http
        self.url = url + "/v1" + PATHS[api]
        self.told: list[RunEvent] = []
        self.grant: Grant

    async def tell(self, event: RunEvent) -> None:
        self.told.append(event)

    async def call(self, **fields: Any) -> int:
        async with self.http.post(self.url, json={"model": "m", **fields}) as response:
            await response.read()
            return response.status

    def usages(self) -> list[Usage]:
        """Return what `usage.updated` said."""
        return [
            Usage.model_validate(e.model_dump()) for e in self.told if isinstance(e, UsageUpdated)
        ]


@asynccontextmanager
async def calling(provider: FakeProvider, api: Api) -> AsyncIterator[Caller]:
    """A door that leads to *provider*; on exit all its calls have ended."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)  # noqa: FBT003
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with ClientSession() as http:
            caller = Caller(http, url, api)
            upstream = HttpUpstream(
                http,
                base_url=provider.base_url,
                api=api,
                key=SecretStr("sk-x"),
                patience=Patience(first_s=5, between_s=5),
            )
            price = Price(input=1, cached=0.5, output=2)
            caller.grant = Grant(upstream=upstream, model="m", tell=caller.tell, price=price)
            async with open_door(listening, token=None) as door:
                with door.granted(caller.grant):
                    yield caller


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_the_providers_figures_add_up(api: Api, stream: bool) -> None:  # noqa: FBT001
    """Each call is told as soon as it is over, as the sum so far."""
    async with fake_provider() as provider, calling(provider, api) as caller:
        provider.plan = Plan(used=USED)

        for _ in range(2):
            assert await caller.call(stream=stream) == 200

    first, both = caller.usages()
    assert first == USAGE.model_copy(update={"cost_usd": pytest.approx(COST)})
    assert both.input_tokens == 200
    assert both.cost_usd == pytest.approx(2 * COST)
    assert both == caller.grant.usage


async def test_nobody_gets_out_of_being_counted() -> None:
    """A provider of chats tells figures to who asks for them: so the proxy does."""
    async with fake_provider() as provider, calling(provider, "chat") as caller:
        await caller.call(stream=True, stream_options={"include_usage": False})

    assert provider.requests[0].body["stream_options"] == {"include_usage": True}


async def test_a_failed_run_has_used_what_went_before() -> None:
    """The calls that were answered are paid for."""
    async with fake_provider() as provider, calling(provider, "responses") as caller:
        provider.plan = Plan(used=USED)
        await caller.call(stream=True)
        provider.plan = Plan(status=401)
        await caller.call(stream=True)

    assert caller.grant.failure.result().code == "key-refused"
    assert caller.grant.usage.input_tokens == 100


async def test_an_answer_that_breaks_off_counts_as_far_as_it_told() -> None:
    """Some providers tell with each piece."""
    async with fake_provider() as provider, calling(provider, "chat") as caller:
        provider.plan = Plan(pieces=["a", "b"], drop_after=1, used=USED, tells_usage_always=True)
        await caller.call(stream=True)

    assert caller.grant.failure.result().code == "provider-dropped"
    assert caller.grant.usage.output_tokens == 20


async def test_hanging_up_does_not_make_a_call_free() -> None:
    """Who leaves has used what the provider told until then."""
    async with fake_provider() as provider, calling(provider, "chat") as caller:
        provider.plan = Plan(pieces=["a", "b"], stall_after=1, used=USED, tells_usage_always=True)
        body = {"model": "m", "stream": True}
        async with caller.http.post(caller.url, json=body) as response:
            assert b"usage" in await response.content.readline()
            response.close()

    assert caller.grant.usage.output_tokens == 20


async def test_a_cancelled_run_has_used_what_was_told(tmp_path: Path) -> None:
    """It stands in its log before the end, and in its state."""
    async with fake_provider() as provider:
        provider.plan = Plan(pieces=["a", "b"], stall_after=1, used=USED, tells_usage_always=True)
        with run_runner(
            tmp_path,
            RUNNER_SANDBOX="process",
            OPENAI_API_KEY="sk-x",
            OPENAI_BASE_URL=provider.base_url,
            OPENAI_API="chat",
            MODELS="openai/scripted",
            OPENCODE_BIN=str(install(tmp_path)),
            RUNNER_PRICES="openai/scripted=1/0.5/2",
        ) as runner:
            async with runner.client() as client, asyncio.timeout(25):
                run_id = await client.start()
                async with client.events(run_id) as response:
                    async for event in read_events(response):
                        if isinstance(event, events.TextDelta):
                            break
                await client.cancel(run_id)
                *_, used, last = await client.log(run_id)
                state = await client.state(run_id)

    assert isinstance(last, events.RunCancelled)
    assert isinstance(used, UsageUpdated)
    assert (used.input_tokens, used.cached_tokens, used.reasoning_tokens) == (100, 60, 5)
    assert used.cost_usd == pytest.approx(COST)
    assert state.usage == Usage.model_validate(used.model_dump())
