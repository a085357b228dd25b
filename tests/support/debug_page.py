"""What a person does on the debug page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.async_api import expect

if TYPE_CHECKING:
    from playwright.async_api import Page

SIGNED_OUT = "#signed-out:not([hidden])"


async def sign_in(page: Page, email: str, password: str) -> None:
    """Fill in the form and send it; whether that worked is to be seen."""
    await page.fill("#email", email)
    await page.fill("#password", password)
    await page.click("#login")


async def ends(page: Page, state: str) -> None:
    """Wait until the run is over and Run can be pressed again."""
    await expect(page.locator("#status")).to_have_attribute("data-state", state)
    await expect(page.locator("#run")).to_be_enabled()
    await expect(page.locator("#stop")).to_be_disabled()
