"""Who gets in, who waits, who is refused."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import unused_port

from runner.contract import events
from tests.support.fake_provider import Plan, fake_provider
from tests.support.processes import alive, eventually
from tests.support.runner import TOKEN, read_events, run_runner

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.runner import RunningRunner


async def code_of(runner: RunningRunner, **fields: object) -> tuple[int, str]:
    async with runner.request_run(**fields) as response:  # type: ignore[arg-type]
        problem = await response.json(content_type=None)
        return response.status, problem["code"]


async def test_one_slot_serves_one_run_and_the_next_sees_its_position(tmp_path: Path) -> None:
    """MAX_CONCURRENT_PROCESSES bounds the runs, RUNNER_QUEUE_SIZE those who wait."""
    async with fake_provider() as provider:
        gate = asyncio.Semaphore(0)
        provider.plan = Plan(pieces=["x"], gate=gate)
        with run_runner(
            tmp_path,
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=provider.base_url,
            MAX_CONCURRENT_PROCESSES="1",
            RUNNER_QUEUE_SIZE="1",
        ) as runner:
            async with (
                asyncio.timeout(60),
                runner.request_run(subject="alice") as first,
                runner.request_run(subject="bob") as second,
            ):
                waiting = read_events(second)
                queued = await anext(waiting)
                assert isinstance(queued, events.RunQueued)
                assert queued.position == 1
                async with runner.request_run(subject="carol") as third:
                    assert third.status == 503
                    assert int(third.headers["Retry-After"]) > 0
                    assert (await third.json(content_type=None))["code"] == "queue-full"
                assert len(runner.sandboxes) <= 1

                gate.release()
                gate.release()
                assert isinstance([e async for e in read_events(first)][-1], events.RunFinished)
                assert isinstance([e async for e in waiting][-1], events.RunFinished)


async def test_what_is_not_offered_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    """A model off the list is 422 and names the allowed ones; no key anywhere is 402."""
    with run_runner(tmp_path, MODELS="openai/one,openai/two") as runner:
        async with runner.request_run(model="openai/three") as response:
            problem = await response.json(content_type=None)
            assert response.status == 422
            assert problem["code"] == "model-not-allowed"
            assert problem["params"]["allowed"] == "openai/one, openai/two"
        assert await code_of(runner) == (402, "key-required")
        assert await code_of(runner, surprise=1) == (422, "unknown-field")
        assert await code_of(runner, run_id="../x") == (422, "invalid-field")
        async with ClientSession() as http:
            async with http.get(f"{runner.url}/models") as response:
                assert response.status == 401
            wrong = {"Authorization": "Bearer wrong"}
            async with http.post(f"{runner.url}/runs", headers=wrong) as response:
                assert response.status == 401


async def test_models_without_a_key_really_answer(tmp_path: Path) -> None:
    """The small local model is the default when nobody has a key; demo/tools uses tools."""
    with run_runner(tmp_path, DEMO="auto") as runner:
        answer, demo = await asyncio.gather(
            runner.run("Say hello."), runner.run(model="demo/tools", subject="bob")
        )

        started = next(e for e in answer if isinstance(e, events.RunStarted))
        assert started.model == "local/smollm2-135m"
        assert isinstance(answer[-1], events.RunFinished), answer[-1]
        assert sum(isinstance(e, events.TextDelta) for e in answer) >= 2
        tools = [e for e in demo if isinstance(e, events.ToolStarted)]
        assert [tool.name for tool in tools] == ["execute", "edit"]
        assert isinstance(demo[-1], events.RunFinished)

        async with (
            ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http,
            http.get(f"{runner.url}/models") as response,
        ):
            models = await response.json()
        assert models["default_without_key"] == "local/smollm2-135m"
        assert {"local/smollm2-135m", "demo/tools"} <= {m["id"] for m in models["models"]}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
async def test_an_ended_runner_leaves_nothing_behind(tmp_path: Path, sig: signal.Signals) -> None:
    """SIGTERM tells the stream and cleans up; after kill -9 the next start sweeps."""
    port = unused_port()
    settings = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    async with fake_provider(port) as provider:
        daemon = {"command": "setsid sleep 300 >/dev/null 2>&1 & echo ok", "description": "x"}
        provider.plan = Plan(gate=asyncio.Semaphore(0), tools=[("bash", daemon)])
        with run_runner(tmp_path, **settings) as runner:
            async with runner.request_run() as response, asyncio.timeout(60):
                reading = read_events(response)
                async for event in reading:
                    if isinstance(event, events.ToolUpdated) and event.status == "completed":
                        break
                started = runner.sandboxed()
                assert started
                await asyncio.to_thread(runner.stop, sig)
                if sig == signal.SIGTERM:
                    *_, last = [event async for event in reading]
                    assert last == events.RunCancelled(seq=last.seq, by="shutdown")
    if sig == signal.SIGTERM:
        assert runner.sandboxes == []
    else:
        with run_runner(tmp_path, **settings):
            assert runner.sandboxes == []
    await eventually(lambda: alive(started) == [], within_s=5)
