"""A real runner and a scripted provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import unused_port

from tests.support.fake_provider import fake_provider
from tests.support.runner import run_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.fake_provider import FakeProvider
    from tests.support.runner import RunningRunner

OPERATOR_KEY = "sk-operator-0f6b2c"


@pytest.fixture(scope="module")
def provider_port() -> int:
    """Where the module's runner expects its provider."""
    return unused_port()


@pytest.fixture(scope="module", params=["responses"], ids=lambda api: api)
def runner(
    request: pytest.FixtureRequest, provider_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRunner]:
    """A runner whose provider is scripted; one for all tests of a module."""
    with run_runner(
        tmp_path_factory.mktemp("runner"),
        OPENAI_API_KEY=OPERATOR_KEY,
        OPENAI_BASE_URL=f"http://127.0.0.1:{provider_port}/v1",
        OPENAI_API=request.param,
        MODELS="openai/scripted,openai/other",
        RUNNER_PROVIDER_TIMEOUT_S="3",
        RUNNER_IDLE_TIMEOUT_S="6",
    ) as running:
        yield running


@pytest.fixture
async def provider(provider_port: int) -> AsyncIterator[FakeProvider]:
    """The provider of the module's runner."""
    async with fake_provider(provider_port) as serving:
        yield serving
