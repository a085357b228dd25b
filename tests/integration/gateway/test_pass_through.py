"""PocketBase through the gateway: the real one, as if it were spoken to itself."""

from __future__ import annotations

import asyncio
import json
import secrets
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import FormData

from tests.support.gateway import gateway_settings, problem_of, run_gateway
from tests.support.pocketbase import PASSWORD, run_pocketbase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from aiohttp import ClientResponse

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User


@pytest.fixture
def notes(pocketbase: RunningPocketBase) -> Iterator[str]:
    """Path of the records of a collection that signed-in users may use, with a file."""
    name, token = f"notes_{secrets.token_hex(4)}", pocketbase.superuser()
    rule = '@request.auth.id != ""'
    fields = [
        {"name": "title", "type": "text"},
        {"name": "paper", "type": "file", "maxSize": 50 << 20, "maxSelect": 1},
    ]
    rules = {f"{kind}Rule": rule for kind in ("list", "view", "create", "update", "delete")}
    body = {"name": name, "type": "base", "fields": fields, **rules}
    pocketbase.must("POST", "/api/collections", body, token=token)
    yield f"/api/collections/{name}/records"
    pocketbase.must("DELETE", f"/api/collections/{name}", token=token)


async def sse(response: ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    event = ""
    async for raw in response.content:
        name, _, value = raw.decode().strip().partition(":")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)


async def test_sign_in_and_records(gateway: RunningGateway, alice: User, notes: str) -> None:
    """Sign in, create, read, change, search, delete."""
    credentials = {"identity": alice.email, "password": PASSWORD}
    path = "/api/collections/users/auth-with-password"
    async with gateway.request("POST", path, json=credentials) as response:
        token = (await response.json())["token"]
    headers = {"Authorization": token}

    async with gateway.request(
        "POST", notes, headers=headers, json={"title": "Grüße & 🙂"}
    ) as response:
        made = await response.json()
    one = f"{notes}/{made['id']}"
    async with gateway.request("PATCH", one, headers=headers, json={"title": "neu"}) as response:
        assert response.status == 200
    params = {"filter": "title = 'neu' && id != ''", "sort": "-id"}
    async with gateway.request("GET", notes, headers=headers, params=params) as response:
        assert [record["id"] for record in (await response.json())["items"]] == [made["id"]]
    async with gateway.request("DELETE", one, headers=headers) as response:
        assert (response.status, await response.read()) == (204, b"")
        assert "Content-Length" not in response.headers
    async with gateway.request("GET", one, headers=headers) as response:
        assert response.status == 404
        assert "code" not in await response.json()  # PocketBase's own words


async def test_files_go_up_and_come_down_whole(
    gateway: RunningGateway, alice: User, notes: str
) -> None:
    """An upload larger than any limit of ours, and parts of it back."""
    paper = secrets.token_bytes(1 << 20) * 20
    form = FormData({"title": "groß"})
    form.add_field("paper", BytesIO(paper), filename="paper.bin")

    async with gateway.request("POST", notes, user=alice, data=form) as response:
        record = await response.json()
    assert response.status == 200, record
    url = f"/api/files/{record['collectionId']}/{record['id']}/{record['paper']}"

    async with gateway.request("GET", url) as response:
        assert await response.read() == paper
        assert int(response.headers["Content-Length"]) == len(paper)
    async with gateway.request("GET", url, headers={"Range": "bytes=5-9"}) as response:
        assert (response.status, await response.read()) == (206, paper[5:10])
        assert response.headers["Content-Range"] == f"bytes 5-9/{len(paper)}"
    async with gateway.request("HEAD", url) as response:
        assert (response.status, await response.read()) == (200, b"")
        assert int(response.headers["Content-Length"]) == len(paper)
        modified = response.headers["Last-Modified"]
    async with gateway.request("GET", url, headers={"If-Modified-Since": modified}) as response:
        assert (response.status, await response.read()) == (304, b"")


async def test_realtime_arrives_at_once(gateway: RunningGateway, alice: User, notes: str) -> None:
    """A subscription through the gateway hears of a record as soon as it is made."""
    collection = notes.split("/")[3]
    async with asyncio.timeout(20), gateway.request("GET", "/api/realtime") as response:
        events = sse(response)
        event, data = await anext(events)
        assert event == "PB_CONNECT"
        body = {"clientId": data["clientId"], "subscriptions": [f"{collection}/*"]}
        async with gateway.request("POST", "/api/realtime", user=alice, json=body) as subscribed:
            assert subscribed.status == 204
        for title in ("eins", "zwei"):
            async with gateway.request("POST", notes, user=alice, json={"title": title}):
                pass
            event, data = await anext(events)
            assert (data["action"], data["record"]["title"]) == ("create", title)


async def test_the_admin_ui_and_public_pages_are_there(gateway: RunningGateway) -> None:
    """One origin for all of it."""
    async with gateway.request("GET", "/_/") as response:
        assert (response.status, response.content_type) == (200, "text/html")
    async with gateway.request("GET", "/api/health") as response:
        assert response.status == 200
        assert response.headers["X-Request-ID"]
        assert "Server" not in response.headers


async def test_redirects_are_the_clients(gateway: RunningGateway) -> None:
    """A redirect of PocketBase is passed on, not followed."""
    async with gateway.request("GET", "/_") as response:
        assert response.status in (301, 302, 307)
        assert response.headers["Location"] in ("_/", "/_/")


async def test_callers_cannot_invent_their_address(
    gateway: RunningGateway, pocketbase: RunningPocketBase
) -> None:
    """PocketBase logs where a request really came from, whatever its headers claim."""
    marker = f"/api/nothing-{secrets.token_hex(6)}"
    spoofed = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Real-IP": "203.0.113.7",
        "Forwarded": "for=203.0.113.7",
        "Connection": "close, X-Forwarded-For",
    }
    async with gateway.request("GET", marker, headers=spoofed) as response:
        assert response.status == 404

    admin = pocketbase.superuser()
    items: list[dict[str, Any]] = []
    query = f"/api/logs?filter=data.url~%27{marker.rpartition('/')[2]}%27"
    async with asyncio.timeout(20):
        while not items:  # PocketBase writes its logs every few seconds
            await asyncio.sleep(0.1)
            answer = await asyncio.to_thread(pocketbase.must, "GET", query, token=admin)
            items = answer["items"]

    assert items[0]["data"]["userIP"] == "127.0.0.1"
    assert "203.0.113.7" not in json.dumps(items)


async def test_pocketbase_away_is_503_and_back_by_itself(
    tmp_path: Path, runner: FakeRunner
) -> None:
    """A problem and when to try again while it is away; its own answers as soon as it is back."""
    with run_pocketbase(tmp_path) as pocketbase:
        port = int(pocketbase.url.rpartition(":")[2])
        settings = gateway_settings(pocketbase, runner_url=runner.url)
    async with run_gateway(settings) as gateway:
        for _ in range(2):
            await is_away(gateway)
            with run_pocketbase(tmp_path, port=port):
                async with gateway.request("GET", "/api/health") as response:
                    assert response.status == 200
        await is_away(gateway)


async def is_away(gateway: RunningGateway) -> None:
    async with gateway.request("GET", "/api/health") as response:
        problem = await problem_of(response)
    assert (response.status, problem["code"]) == (503, "pocketbase-unavailable")
    assert response.headers["Retry-After"]


async def test_uploads_that_are_refused_early_are_answered(gateway: RunningGateway) -> None:
    """PocketBase's answer arrives even where it does not read the body to its end."""
    for path, size, status in (("/api/nothing", 8 << 20, 404), ("/api/realtime", 64 << 20, 413)):
        body = BytesIO(bytes(size))
        headers = {"Content-Type": "application/json"}
        async with gateway.request("POST", path, data=body, headers=headers) as response:
            answer = await response.json(content_type=None)
        assert (response.status, answer["status"]) == (status, status)
