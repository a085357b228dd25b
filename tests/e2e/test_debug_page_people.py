"""Who uses the debug page, and PocketBase's admin UI beside it; in a real browser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from runner.contract.requests import OpenCodeHealth
from tests.support.browser import open_page
from tests.support.debug_page import SIGNED_OUT, ends, sign_in
from tests.support.fake_runner import FINISHED, STARTED, playing, text
from tests.support.gateway import changes_are_heard
from tests.support.pocketbase import PASSWORD, SUPERUSER_EMAIL, SUPERUSER_PASSWORD

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from tests.support.fake_runner import FakeRunner
    from tests.support.gateway import RunningGateway
    from tests.support.pocketbase import RunningPocketBase, User

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_person_signs_in_and_out(page: Page, alice: User) -> None:
    """Signing in shows who is there, survives a reload, and ends with signing out."""
    await sign_in(page, alice.email, PASSWORD)
    await expect(page.locator("#whoami")).to_have_text(alice.name)
    await page.reload()
    await expect(page.locator("#whoami")).to_have_text(alice.name)

    await page.click("#logout")

    await expect(page.locator(SIGNED_OUT)).to_be_visible()
    await expect(page.locator("#work")).to_be_hidden()
    assert await page.evaluate("localStorage.getItem('pocketbase_auth')") is None


@pytest.mark.parametrize(
    ("locale", "sentence"),
    [
        pytest.param("de-DE", "E-Mail oder Passwort ist falsch", id="german"),
        pytest.param("en-GB", "Wrong email or password", id="english"),
        pytest.param("fr-FR", "Wrong email or password", id="other"),
    ],
)
async def test_a_wrong_password_is_told_in_the_browsers_language(
    gateway: RunningGateway, browser: Browser, alice: User, locale: str, sentence: str
) -> None:
    """A refused sign-in is one sentence, and the person can try again."""
    async with open_page(browser, f"{gateway.url}/debug.html", locale=locale) as page:
        await sign_in(page, alice.email, "not-the-password")
        await expect(page.locator("#error")).to_contain_text(sentence)

        await sign_in(page, alice.email, PASSWORD)
        await expect(page.locator("#whoami")).to_have_text(alice.name)
        await expect(page.locator("#error")).to_be_hidden()


async def test_the_language_can_be_switched(signed_in: Page) -> None:
    """The page and the server's sentences follow the person's choice."""
    await signed_in.select_option("#language", "en")
    await expect(signed_in.locator("#run")).to_have_text("Run")
    await signed_in.click("#run")

    await expect(signed_in.locator("#error-message")).to_have_text("A prompt is required")
    assert await signed_in.get_attribute("html", "lang") == "en"


async def test_a_revoked_token_signs_out(
    pocketbase: RunningPocketBase, gateway: RunningGateway, signed_in: Page, alice: User
) -> None:
    """Once the token is good no more, the page says so; what was typed is kept for its owner."""
    await signed_in.fill("#prompt", "unfinished thought")
    await changes_are_heard(gateway)
    pocketbase.change(alice, password="another-password", passwordConfirm="another-password")

    async with asyncio.timeout(30):
        while not await signed_in.locator(SIGNED_OUT).is_visible():
            await signed_in.click("#run")
            await expect(signed_in.locator("#run")).to_be_enabled()

    await expect(signed_in.locator("#signed-out-reason")).to_contain_text("neu anmelden")
    await sign_in(signed_in, alice.email, "another-password")
    await expect(signed_in.locator("#prompt")).to_have_value("unfinished thought")


async def test_the_key_is_set_and_removed_and_never_shown(signed_in: Page) -> None:
    """A key goes in; only that there is one, and its last 4 characters, come out."""
    await expect(signed_in.locator("#key-state")).to_have_text("Keiner hinterlegt")
    await signed_in.fill("#key-input", "sk-canary-0123456789")
    await signed_in.click("#key-save")
    await expect(signed_in.locator("#key-state")).to_have_text("Hinterlegt, endet auf 6789")
    await expect(signed_in.locator("#key-input")).to_have_value("")
    await signed_in.reload()
    await expect(signed_in.locator("#key-state")).to_have_text("Hinterlegt, endet auf 6789")
    assert "canary" not in await signed_in.content()

    await signed_in.click("#key-remove")

    await expect(signed_in.locator("#key-state")).to_have_text("Keiner hinterlegt")
    await expect(signed_in.locator("#key-remove")).to_be_disabled()


async def test_health_shows_each_part(runner: FakeRunner, page: Page) -> None:
    """Whoever opens the page sees how PocketBase, runner, OpenCode and queue are."""
    for part in ("pocketbase", "runner", "opencode", "queue"):
        row = page.locator(f'#health [data-part="{part}"]')
        await expect(row).to_have_attribute("data-state", "ok")

    runner.opencode = OpenCodeHealth(status="down", reason="no such program")
    await page.reload()

    row = page.locator('#health [data-part="opencode"]')
    await expect(row).to_have_attribute("data-state", "down")
    await expect(row).to_contain_text("ausgefallen")
    await expect(page.locator("#health-overall")).to_have_attribute("data-state", "down")


async def test_one_persons_answer_is_gone_for_the_next(
    pocketbase: RunningPocketBase, runner: FakeRunner, signed_in: Page
) -> None:
    """Two people at one machine do not see each other's prompts and answers."""
    runner.script = playing(STARTED, text("for the first only"), FINISHED)
    await signed_in.fill("#prompt", "secret question")
    await signed_in.click("#run")
    await ends(signed_in, "finished")

    await signed_in.click("#logout")
    bob = pocketbase.new_user("Bob")
    await sign_in(signed_in, bob.email, PASSWORD)
    await expect(signed_in.locator("#whoami")).to_have_text("Bob")

    await expect(signed_in.locator("#answer")).to_be_empty()
    await expect(signed_in.locator("#prompt")).to_have_value("")
    assert "for the first only" not in await signed_in.content()


async def test_the_admin_ui_works_through_the_gateway(
    gateway: RunningGateway, browser: Browser
) -> None:
    """PocketBase's own pages share the origin: a superuser signs in and sees the users."""
    async with open_page(browser, f"{gateway.url}/_/") as page:
        await page.fill("input[name=identity]", SUPERUSER_EMAIL)
        await page.fill("input[type=password]", SUPERUSER_PASSWORD)
        await page.press("input[type=password]", "Enter")

        await expect(page.get_by_role("button", name="New record").first).to_be_visible()
        await expect(page.get_by_text(SUPERUSER_EMAIL)).to_be_visible()
        await expect(page.locator("body")).to_contain_text("emailVisibility")
