"""What bad input gets: a status, a stable code and a sentence in the caller's language."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from yarl import URL

from runner.contract.messages import sentence
from runner.contract.problems import KeyRequired, ModelNotAllowed, QueueFull, ServiceError
from tests.support.gateway import gateway_settings, problem_of, run_gateway

if TYPE_CHECKING:
    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

STREAM = "/opencode/stream"
ALLOWED = "model, permission, prompt, session_id"

BAD_QUERIES = [
    pytest.param("", 400, "prompt-required", id="no-query"),
    pytest.param("prompt=", 400, "prompt-required", id="empty"),
    pytest.param("prompt=%20%0A", 400, "prompt-required", id="blank"),
    pytest.param("prompt=x&promt=y", 422, "unknown-field", id="unknown"),
    pytest.param("prompt=x&prompt=y", 422, "invalid-field", id="twice"),
    pytest.param("prompt=a%00b", 422, "invalid-field", id="nul"),
    pytest.param("prompt=%FF", 400, "bad-request", id="no-utf-8"),
    pytest.param("%FF=x", 400, "bad-request", id="no-utf-8-name"),
    pytest.param("prompt=%ED%A0%80", 400, "bad-request", id="surrogate"),
    pytest.param("prompt=x&session_id=abc", 422, "session-not-found", id="session"),
    pytest.param("&".join(f"a{n}=b" for n in range(50)), 400, "bad-request", id="many"),
]

BAD_BODIES = [
    pytest.param(b"", 400, "malformed-json", id="empty"),
    pytest.param(b"{", 400, "malformed-json", id="cut-off"),
    pytest.param(b"[1]", 400, "malformed-json", id="array"),
    pytest.param(b'"x"', 400, "malformed-json", id="string"),
    pytest.param(b"\xff", 400, "malformed-json", id="no-utf-8"),
    pytest.param(b"[" * 100_000, 400, "malformed-json", id="deep"),
    pytest.param(rb'{"prompt": "\ud800"}', 400, "malformed-json", id="surrogate"),
    pytest.param(rb'{"\uD800": "x"}', 400, "malformed-json", id="surrogate-name"),
    pytest.param(b"{}", 400, "prompt-required", id="no-prompt"),
    pytest.param(b'{"prompt": null}', 400, "prompt-required", id="null"),
    pytest.param(b'{"prompt": " \\n "}', 400, "prompt-required", id="blank"),
    pytest.param(b'{"prompt": 5}', 422, "invalid-field", id="number"),
    pytest.param(rb'{"prompt": "a\u0000"}', 422, "invalid-field", id="nul"),
    pytest.param(b'{"prompt": "x", "modle": "y"}', 422, "unknown-field", id="unknown"),
    pytest.param(b'{"prompt": "x", "model": 1}', 422, "invalid-field", id="model-number"),
    pytest.param(b'{"prompt": "x", "session_id": "y"}', 422, "session-not-found", id="session"),
]


def expected_sentence(problem: dict[str, Any], language: str) -> str:
    return sentence(problem["code"], language, **problem.get("params", {}))


@pytest.mark.parametrize("language", ["de", "en"])
@pytest.mark.parametrize(("query", "status", "code"), BAD_QUERIES)
async def test_bad_queries_are_problems(
    *,
    gateway: RunningGateway,
    runner: FakeRunner,
    alice: User,
    query: str,
    status: int,
    code: str,
    language: str,
) -> None:
    """Each mistake in the query has its status, code and sentence, and starts nothing."""
    headers = {"Accept-Language": language}
    async with gateway.request("GET", f"{STREAM}?{query}", user=alice, headers=headers) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (status, code)
    assert problem["error"] == expected_sentence(problem, language)
    assert response.headers["Content-Language"] == language
    assert runner.started == []


@pytest.mark.parametrize("language", ["de", "en"])
@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES)
async def test_bad_bodies_are_problems(
    *,
    gateway: RunningGateway,
    runner: FakeRunner,
    alice: User,
    body: bytes,
    status: int,
    code: str,
    language: str,
) -> None:
    """Each mistake in the body has its status, code and sentence, and starts nothing."""
    headers = {"Accept-Language": language, "Content-Type": "application/json"}
    async with gateway.request("POST", STREAM, user=alice, headers=headers, data=body) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (status, code)
    assert problem["error"] == expected_sentence(problem, language)
    assert runner.started == []


async def test_missing_prompt_is_told_in_german_unless_asked_otherwise(
    gateway: RunningGateway, alice: User
) -> None:
    """The sentence operators of the original know."""
    async with gateway.request("GET", STREAM, user=alice) as response:
        problem = await problem_of(response)

    assert problem["error"] == "Prompt ist erforderlich"


async def test_unknown_fields_are_named_with_the_allowed_ones(
    gateway: RunningGateway, alice: User
) -> None:
    """A typo can be mended from the answer alone."""
    async with gateway.request("GET", f"{STREAM}?promt=x", user=alice) as response:
        problem = await problem_of(response)

    assert problem["params"] == {"fields": "promt", "allowed": ALLOWED}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_bodies_that_are_not_json_are_refused(
    gateway: RunningGateway, alice: User, content_type: str
) -> None:
    """Only JSON is read, so that no plain form of another site can start a run."""
    async with gateway.request(
        "POST", STREAM, user=alice, data=b'{"prompt": "x"}', headers={"Content-Type": content_type}
    ) as response:
        assert (await problem_of(response))["code"] == "unsupported-media-type"


@pytest.mark.parametrize("char", ["a", "ü", "🙂"])
async def test_the_limit_of_a_prompt_counts_bytes(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User, char: str
) -> None:
    """A prompt at the limit runs both ways; one byte more is 413 and names the limit."""
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_max_prompt_bytes=200_000)
    fits = char * (200_000 // len(char.encode()))
    async with run_gateway(settings) as gateway:
        for prompt, status in ((fits, 200), (fits + "x", 413)):
            url = f"{STREAM}?prompt={quote(prompt)}"
            async with gateway.request("GET", url, user=alice) as got:
                text = await got.text()
            body = json.dumps({"prompt": prompt}).encode()  # every character escaped
            headers = {"Content-Type": "application/json"}
            async with gateway.request(
                "POST", STREAM, user=alice, data=body, headers=headers
            ) as posted:
                await posted.read()
            assert (got.status, posted.status) == (status, status)
            if status == 413:
                assert json.loads(text)["params"] == {"limit_bytes": 200_000}

    assert [run["prompt"] for run in runner.started] == [fits, fits]


async def test_bodies_no_prompt_could_fill_are_refused_unread(
    pocketbase: RunningPocketBase, runner: FakeRunner, alice: User
) -> None:
    """However large a body is, only so much of it is held."""
    settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_max_prompt_bytes=10)
    async with (
        run_gateway(settings) as gateway,
        gateway.request("POST", STREAM, user=alice, json={"prompt": "x" * 300_000}) as response,
    ):
        problem = await problem_of(response)

    assert (problem["code"], problem["params"]) == ("prompt-too-large", {"limit_bytes": 10})


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "text/plain;q=0"])
async def test_formats_that_do_not_exist_are_refused(
    gateway: RunningGateway, alice: User, accept: str
) -> None:
    """A caller who accepts nothing that is offered learns what is."""
    async with gateway.stream(alice, accept=accept) as response:
        problem = await problem_of(response)

    assert response.status == 406
    assert problem["params"]["allowed"] == "text/plain, text/event-stream, application/x-ndjson"


@pytest.mark.parametrize("language", ["de", "en"])
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (KeyRequired(), 402),
        (ModelNotAllowed(model="x/y", allowed="a/b, c/d"), 422),
        (QueueFull(retry_after_s=7), 503),
    ],
    ids=lambda value: value.code if isinstance(value, ServiceError) else "",
)
async def test_refusals_of_the_runner_are_passed_on(
    *,
    gateway: RunningGateway,
    runner: FakeRunner,
    alice: User,
    refusal: ServiceError,
    status: int,
    language: str,
) -> None:
    """What the runner refuses keeps status, code and params; the sentence is the caller's."""
    runner.refusal = refusal

    headers = {"Accept-Language": language}
    async with gateway.request(
        "GET", f"{STREAM}?prompt=x", user=alice, headers=headers
    ) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (status, refusal.code)
    assert problem["error"] == refusal.sentence(language)
    assert problem.get("params", {}) == refusal.params
    retry_after = response.headers.get("Retry-After")
    assert retry_after == ("7" if refusal.retry_after_s else None)


async def test_a_runner_that_does_not_know_the_gateway_is_no_fault_of_the_caller(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """A wrong service token looks like a runner that is away, not like a bad sign-in."""
    runner.token = "another"

    async with gateway.stream(alice) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (503, "runner-unavailable")
    assert response.headers["Retry-After"]


async def test_a_runner_that_is_away_is_told_at_once(
    pocketbase: RunningPocketBase, alice: User
) -> None:
    """No runner: 503, and when to try again."""
    async with (
        run_gateway(gateway_settings(pocketbase)) as gateway,
        asyncio.timeout(10),
        gateway.stream(alice) as response,
    ):
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (503, "runner-unavailable")
    assert response.headers["Retry-After"]


async def test_head_checks_and_starts_nothing(
    gateway: RunningGateway, runner: FakeRunner, alice: User
) -> None:
    """HEAD answers as GET would, without a run."""
    async with gateway.request("HEAD", f"{STREAM}?prompt=x", user=alice) as good:
        assert (good.status, good.content_type) == (200, "text/plain")
    async with gateway.request("HEAD", STREAM, user=alice) as bad:
        assert bad.status == 400

    assert runner.started == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", STREAM, {"GET", "HEAD", "POST"}),
        ("POST", "/opencode/key", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PUT", "/opencode/models", {"GET", "HEAD"}),
        ("POST", "/opencode/health", {"GET", "HEAD"}),
        ("POST", "/test", {"GET", "HEAD"}),
    ],
)
async def test_wrong_methods_are_told_the_right_ones(
    gateway: RunningGateway, method: str, path: str, allow: set[str]
) -> None:
    """405 with `Allow`, as a problem; nothing of it reaches PocketBase."""
    async with gateway.request(method, path) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (405, "method-not-allowed")
    assert set(response.headers["Allow"].split(",")) == allow


@pytest.mark.parametrize(
    "path", ["/opencode", "/opencode/", "/opencode/nothing", "/opencode/../api/health"]
)
async def test_unknown_paths_of_ours_are_not_found(gateway: RunningGateway, path: str) -> None:
    """What is below /opencode is ours, and answered as ours."""
    url = URL(gateway.url + path, encoded=True)
    async with gateway.http.get(url, headers={"Accept-Language": "en"}) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (404, "not-found")
    assert problem["error"] == "There is no such thing here"


async def test_a_request_that_is_no_proper_http_is_a_problem_too(gateway: RunningGateway) -> None:
    """An umlaut that was typed into the address as it is: the answer says what to do."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("GET /opencode/stream?prompt=Grüße HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert b" 400 " in head.split(b"\r\n")[0]
    assert b"application/problem+json" in head
    assert b"aiohttp" not in head
    problem = json.loads(body)
    assert problem["code"] == "malformed-request"
    assert "--data-urlencode" in problem["error"]
