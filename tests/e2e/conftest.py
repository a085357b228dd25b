"""The debug page in a real browser: the real PocketBase, the real gateway, a scripted runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
from playwright.async_api import expect

from tests.support.browser import open_page, run_browser
from tests.support.debug_page import sign_in
from tests.support.fake_runner import run_fake_runner
from tests.support.gateway import gateway_settings, run_gateway
from tests.support.pocketbase import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with run_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def runner() -> AsyncIterator[FakeRunner]:
    async with run_fake_runner() as runner:
        yield runner


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(
    pocketbase: RunningPocketBase, runner: FakeRunner
) -> AsyncIterator[RunningGateway]:
    async with run_gateway(gateway_settings(pocketbase, runner_url=runner.url)) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def page(gateway: RunningGateway, browser: Browser) -> AsyncIterator[Page]:
    """The debug page of a German who has never been here."""
    async with open_page(browser, f"{gateway.url}/debug.html") as page:
        yield page


@pytest_asyncio.fixture(loop_scope="module")
async def signed_in(page: Page, alice: User) -> Page:
    """The debug page of Alice, who is signed in."""
    await sign_in(page, alice.email, PASSWORD)
    await expect(page.locator("#whoami")).to_have_text(alice.name)
    return page
