"""The API document says what the gateway does; the gateway does what it says."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from gateway.openapi.document import document
from gateway.openapi.operations import OPERATIONS
from gateway.routes import ROUTES
from runner.contract.events import EVENTS, TextDelta
from tests.support.fake_runner import FINISHED, STARTED, text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import User

DOCS = ("/opencode/openapi.json", "/opencode/docs", "/opencode/docs/{file}")
EXAMPLES = 25
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "allow_header_conformance",
)


def test_every_route_is_documented_and_every_documented_route_is_there() -> None:
    """What is in the document and what is served are the same."""
    served = {(route.method, route.path.replace("{id:[a-z0-9]{15}}", "{id}")) for route in ROUTES}

    assert {route for route in served if route[1] not in DOCS} == set(OPERATIONS)


def test_the_document_is_openapi() -> None:
    """Every reference leads somewhere, and every schema is one."""
    told = document()
    schemas = told["components"]["schemas"]

    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(told)))
    assert references <= set(schemas)
    for name in schemas:
        schema = {"$ref": f"#/components/schemas/{name}", "components": told["components"]}
        jsonschema_rs.Draft202012Validator(schema)
    ids = [
        operation["operationId"]
        for path in told["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)


def test_events_are_as_documented() -> None:
    """The stream's events fit the document's schema of them; others don't."""
    told = document()
    schema = {"$ref": "#/components/schemas/RunEvent", "components": told["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)

    for event in ({"seq": 0, **STARTED}, {"seq": 1, **FINISHED}, {"seq": 2, **text("x")}):
        assert validator.is_valid(event)
        EVENTS.validate_python(event)
    assert validator.is_valid(TextDelta(seq=3, text="x").model_dump())
    assert not validator.is_valid({"seq": 0, "type": "weather.changed"})


async def test_the_document_and_the_page_need_no_token(gateway: RunningGateway) -> None:
    """Whoever wants to know the API may; the page loads nothing from elsewhere."""
    async with gateway.request("GET", "/opencode/openapi.json") as response:
        told: dict[str, Any] = await response.json()
    async with gateway.request("GET", "/opencode/docs") as response:
        page = await response.text()
        assert response.content_type == "text/html"
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    for name in re.findall(r'(?:src|href)="(/opencode/docs/[^"]+)"', page):
        async with gateway.request("GET", name) as response:
            assert response.status == 200, name
            page += await response.text()
    async with gateway.request("GET", "/opencode/docs/nothing.js") as response:
        assert response.status == 404

    assert told == document()
    assert told["openapi"].startswith("3.1")
    assert not re.search(r"(src|href|url)[=(]\W*(https?:)?//", page)


@pytest.mark.parametrize("signed_in", [True, False], ids=["signed-in", "nobody"])
@pytest.mark.timeout(240)
async def test_whatever_is_asked_the_answer_is_documented(
    gateway: RunningGateway,
    runner: FakeRunner,
    alice: User,
    tmp_path: Path,
    *,
    signed_in: bool,
) -> None:
    """Schemathesis: no 5xx, no status, type, header or body that the document does not know."""
    async with gateway.request(
        "POST", "/opencode/runs", user=alice, json={"prompt": "x"}
    ) as response:
        run_id = (await response.json())["id"]
    config = tmp_path / "schemathesis.toml"
    known = f'[parameters]\n"path.id" = "{run_id}"\n'
    token = f'[headers]\nAuthorization = "Bearer {alice.token}"\n'
    config.write_text(known + token if signed_in else known, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", f"--config-file={config}", "run"),
        *(f"{gateway.url}/opencode/openapi.json", f"--max-examples={EXAMPLES}"),
        *("--phases=examples,coverage,fuzzing", "--generation-database=none", "--seed=5"),
        *("--suppress-health-check=all", "--request-timeout=20", "--continue-on-failure"),
        *(f"--checks={','.join(CHECKS)}", "--warnings=off", "--no-color"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(220):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0, told.decode(errors="replace")[-8000:]
    assert bool(runner.started[1:]) == signed_in
