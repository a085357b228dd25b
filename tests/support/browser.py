"""A real Chromium for tests, and pages that notice what should not happen on them."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from playwright.async_api import async_playwright, expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from playwright.async_api import Browser, ConsoleMessage, Page, Request

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # the tests' user may be root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WAIT_MS = 15_000
expect.set_options(timeout=_WAIT_MS)  # Playwright's 5 s are short for a busy machine
_API = ("/api/", "/opencode/")


@asynccontextmanager
async def run_browser() -> AsyncIterator[Browser]:
    """Run Chromium, with a profile of its own that is gone afterwards.

    Raises:
        FileNotFoundError: There is no Chromium on this machine.
    """
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        raise FileNotFoundError("install Chromium: the browser tests need one of " + str(_PROGRAMS))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        env: dict[str, str | float | bool] = {"PATH": os.environ["PATH"], "HOME": home}
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=program, args=_ARGUMENTS, env=env
            )
            try:
                yield browser
            finally:
                await browser.close()


@dataclass
class Complaints:
    """What a page's console, its policy and its requests have to complain about."""

    host: str
    messages: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note everything from now on."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.messages.append(f"uncaught: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        # Chromium writes every refused request to the console, however well the page handles it.
        path = urlsplit(message.location["url"]).path
        if message.text.startswith("Failed to load resource") and path.startswith(_API):
            return
        if message.type in ("error", "warning"):
            self.messages.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self.host:
            self.messages.append(f"request to another host: {parts.netloc}")


@asynccontextmanager
async def open_page(
    browser: Browser, url: str, *, locale: str = "de-DE", **context_options: Any
) -> AsyncIterator[Page]:
    """Open *url* as a person who has never been here; fail at the end if the page complained.

    Uncaught errors, console errors and warnings (violations of the content security policy among
    them) and requests to other hosts count; refused or failed calls of the API don't.
    """
    context = await browser.new_context(locale=locale, **context_options)
    try:
        context.set_default_timeout(_WAIT_MS)
        page = await context.new_page()
        complaints = Complaints(urlsplit(url).netloc)
        complaints.watch(page)
        await page.goto(url)
        yield page
        assert not complaints.messages, complaints.messages
    finally:
        await context.close()
