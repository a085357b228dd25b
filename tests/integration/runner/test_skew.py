"""A gateway of another release: what a newer one adds is passed over, an alien one is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession

from runner.contract import headers
from runner.contract.version import CONTRACT
from tests.support import scripted_agent
from tests.support.runner import TOKEN, new_run_id, run_runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.runner import RunningRunner


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRunner]:
    """A runner whose agent is light."""
    directory = tmp_path_factory.mktemp("runner")
    with run_runner(
        directory,
        OPENAI_API_KEY="k",
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
        OPENCODE_BIN=str(scripted_agent.install(directory)),
        RUNNER_SANDBOX="process",
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("contract", "status", "code"),
    [
        (CONTRACT + 1, 202, None),
        (CONTRACT, 422, "unknown-field"),
        (CONTRACT - 1, 422, "unknown-field"),
        (CONTRACT + 2, 503, "contract-mismatch"),
    ],
)
async def test_fields_that_nobody_knows(
    runner: RunningRunner, contract: int, status: int, code: str | None
) -> None:
    """From a newer gateway they are additions, from another one mistakes."""
    body = {"run_id": new_run_id(), "subject": "alice", "prompt": "Hi", "new_in_the_next": 1}
    told = {"Authorization": f"Bearer {TOKEN}", headers.CONTRACT: str(contract)}

    async with (
        ClientSession(headers=told) as http,
        http.post(f"{runner.url}/runs", json=body) as response,
    ):
        answer = await response.json(content_type=None)

    assert (response.status, answer.get("code")) == (status, code)
    assert response.headers[headers.CONTRACT] == str(CONTRACT)
