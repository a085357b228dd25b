"""Metrics of both services, each on an address of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import ClientSession

from tests.support.fake_provider import fake_provider
from tests.support.fake_runner import run_fake_runner
from tests.support.gateway import changes_are_heard, gateway_settings, run_gateway
from tests.support.pocketbase import free_port
from tests.support.runner import run_runner
from tests.support.scripted_agent import install

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.pocketbase import RunningPocketBase, User


async def scraped(port: int) -> dict[str, float]:
    """Return every sample by name and labels."""
    async with (
        ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/plain"
        lines = (await response.text()).splitlines()
    return {
        name: float(value)
        for name, value in (li.rsplit(" ", 1) for li in lines if not li.startswith("#"))
    }


async def test_the_gateway_counts_and_names_nobody(
    pocketbase: RunningPocketBase, alice: User
) -> None:
    """By the pattern of a route: what callers write into an address is in no label."""
    port = free_port()
    async with run_fake_runner() as runner:
        settings = gateway_settings(pocketbase, runner_url=runner.url, gateway_metrics_port=port)
        async with run_gateway(settings) as gateway:
            await changes_are_heard(gateway)  # until then nothing is kept
            for path in ("/opencode/stream?prompt=secret", "/opencode/runs/abcdefghij12345"):
                async with gateway.request("GET", path, user=alice) as response:
                    await response.read()
            async with gateway.request("GET", "/api/health") as response:
                await response.read()
            async with gateway.request("GET", "/opencode/nothing-secret") as response:
                assert response.status == 404
            told = await scraped(port)

    requests = {name: n for name, n in told.items() if name.startswith("gateway_requests_total")}
    assert requests == {
        'gateway_requests_total{route="/opencode/stream",status="200"}': 1,
        'gateway_requests_total{route="/opencode/runs/{id}",status="404"}': 1,
        'gateway_requests_total{route="pocketbase",status="200"}': 1,
        'gateway_requests_total{route="unknown",status="404"}': 1,
    }
    assert told['gateway_token_checks_total{answer="asked"}'] == 1
    assert told['gateway_token_checks_total{answer="known"}'] == 1
    assert told["gateway_streams_open"] == 0
    assert not re.search(f"secret|{alice.id}", str(told))


async def test_the_runner_counts_its_runs(tmp_path: Path) -> None:
    """Started, ended, tokens, slots; no subject and no run."""
    port = free_port()
    async with fake_provider() as provider:
        with run_runner(
            tmp_path,
            RUNNER_SANDBOX="process",
            OPENAI_API_KEY="sk-x",
            OPENAI_BASE_URL=provider.base_url,
            MODELS="openai/scripted",
            OPENCODE_BIN=str(install(tmp_path)),
            RUNNER_METRICS_PORT=str(port),
        ) as runner:
            await runner.run(subject="alice")
            told = await scraped(port)

    assert told["runner_runs_started_total"] == 1
    assert told['runner_runs_ended_total{code="",outcome="finished"}'] == 1
    assert told["runner_first_text_seconds_count"] == 1
    assert told['runner_tokens_total{kind="output"}'] == 11
    assert told["runner_slots"] == 10
    assert told["runner_queue_length"] == 0
    assert "alice" not in str(told)


async def test_a_taken_port_is_told_and_does_no_harm(
    pocketbase: RunningPocketBase, alice: User, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two stacks on one machine: the second serves all the same."""
    port = free_port()
    settings = gateway_settings(pocketbase, gateway_metrics_port=port)
    async with run_gateway(settings), run_gateway(settings) as second:
        async with second.request("GET", "/opencode/key", user=alice) as response:
            assert response.status == 200
        assert await scraped(port)

    assert "GATEWAY_METRICS_PORT" in capsys.readouterr().out
