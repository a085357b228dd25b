"""The debug page on what `make run` starts: the real OpenCode answers a person in a browser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.support.browser import open_page, run_browser
from tests.support.debug_page import sign_in
from tests.support.stack import start_stack

if TYPE_CHECKING:
    from pathlib import Path

_ANSWER_MS = 90_000


@pytest.mark.timeout(300)
async def test_a_fresh_stack_answers_the_demo_user(tmp_path: Path) -> None:
    """Sign in as printed, run the demo, see its tools and its text, then the small model's."""
    with start_stack(tmp_path / "data") as stack:
        await asyncio.to_thread(stack.wait_until_up)
        email, password = stack.words(r"Demo user +(\S+) +password: (\S+)")
        async with (
            run_browser() as browser,
            open_page(browser, f"{stack.origin}/debug.html") as page,
        ):
            await sign_in(page, email, password)
            await expect(page.locator("#whoami")).to_have_text("Demo")
            status = page.locator("#status")
            for model, wanted in (("demo/tools", "hello.txt"), ("local/smollm2-135m", "")):
                await page.select_option("#model", model)
                await page.fill("#prompt", "Say hello.")
                await page.click("#run")
                await expect(status).to_have_attribute("data-state", "finished", timeout=_ANSWER_MS)
                answer = await page.locator("#answer").inner_text()
                assert wanted in answer
                assert len(answer) > 1
