"""The gateway with everything real but the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fake_runner import run_fake_runner
from tests.support.gateway import gateway_settings, run_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase


@pytest.fixture
async def runner() -> AsyncIterator[FakeRunner]:
    """The other service, scripted."""
    async with run_fake_runner() as runner:
        yield runner


@pytest.fixture
async def gateway(
    pocketbase: RunningPocketBase, runner: FakeRunner
) -> AsyncIterator[RunningGateway]:
    """The gateway, as it is served."""
    settings = gateway_settings(pocketbase, runner_url=runner.url)
    async with run_gateway(settings) as gateway:
        yield gateway
