"""The page that shows the API and tries it, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from gateway.openapi.operations import OPERATIONS
from tests.support.browser import open_page
from tests.support.fake_runner import FINISHED, STARTED, playing, text
from tests.support.pocketbase import PASSWORD

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import User

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = '<img src=x onerror="window.hacked=1">'


async def test_the_api_is_shown_and_tried(
    gateway: RunningGateway, runner: FakeRunner, browser: Browser, alice: User
) -> None:
    """Every operation has its place; one signs in, sends, and sees the answer as text."""
    runner.script = playing(STARTED, text(HOSTILE), FINISHED)
    async with open_page(browser, f"{gateway.url}/opencode/docs") as page:
        await expect(page.locator("#operations > details")).to_have_count(len(OPERATIONS))
        await page.fill("#email", alice.email)
        await page.fill("#password", PASSWORD)
        await page.click("#sign-in button")
        await expect(page.locator("#signed-in")).to_contain_text(alice.name)

        stream = page.locator("#get_stream")
        await stream.locator("summary").click()
        await stream.locator("[data-name=prompt]").fill("Grüße")
        await stream.get_by_role("button", name="Send").click()
        await expect(stream.locator("pre")).to_contain_text(f"{HOSTILE}\n[✔ User {alice.name}")

        key = page.locator("#put_key")
        await key.locator("summary").click()
        await key.locator("textarea").fill('{"api_key": "sk-0123456789ab"}')
        await key.get_by_role("button", name="Send").click()
        await expect(key.locator("pre")).to_contain_text('"last4": "89ab"')

        assert await page.evaluate("window.hacked") is None
    assert runner.started[-1]["prompt"] == "Grüße"
