"""Running prompts on the debug page, in a real browser."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Error, expect

from tests.support.debug_page import ends
from tests.support.fake_runner import FINISHED, STARTED, playing, text

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

    from tests.support.fake_runner import FakeRunner, Stage
    from tests.support.gateway import RunningGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
PLACES = (
    *("#answer", "#thoughts-text", "#plan-entries", ".tool-name", ".tool-title", ".tool pre"),
    *("[data-fact=factModel] dd", "#error-message"),
)
FORMATS = ["text/event-stream", "application/x-ndjson", "text/plain"]


@pytest.mark.parametrize("media_type", FORMATS)
async def test_text_appears_piece_by_piece(
    runner: FakeRunner, signed_in: Page, media_type: str
) -> None:
    """Each piece is on the page before the runner sends the next one, in every format."""
    pauses = [asyncio.Event(), asyncio.Event()]

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, text("Grü"))
        await pauses[0].wait()
        await stage.send(text("ße, "))
        await pauses[1].wait()
        await stage.send(text("Welt 🎉"), FINISHED)

    runner.script = script
    answer = signed_in.locator("#answer")

    await signed_in.select_option("#format", media_type)
    await signed_in.fill("#prompt", "Sag hallo")
    await signed_in.click("#run")
    await expect(answer).to_have_text("Grü")
    await expect(signed_in.locator("#status")).to_have_attribute("data-state", "running")
    pauses[0].set()
    await expect(answer).to_have_text("Grüße,")
    pauses[1].set()
    await ends(signed_in, "finished")

    await expect(answer).to_contain_text("Grüße, Welt 🎉")
    assert runner.started[-1]["prompt"] == "Sag hallo"


async def test_hostile_output_is_shown_as_text(runner: FakeRunner, signed_in: Page) -> None:
    """Markup from a model, a tool or an error is never more than its characters."""
    runner.script = playing(
        {**STARTED, "model": HOSTILE},
        {"type": "thought.delta", "text": HOSTILE},
        {"type": "plan.updated", "entries": [{"content": HOSTILE}]},
        text(HOSTILE),
        {"type": "tool.started", "id": "t", "name": HOSTILE, "title": HOSTILE, "input": HOSTILE},
        {"type": "tool.updated", "id": "t", "status": "completed", "output": HOSTILE},
        {"type": "tool.updated", "id": "t", "diff": {"path": HOSTILE, "new_text": HOSTILE}},
        {"type": "provider.waiting", "attempt": 1, "reason": HOSTILE, "retry_s": 1},
        {"type": "run.failed", "code": HOSTILE, "message": HOSTILE},
    )

    await signed_in.fill("#prompt", "x")
    await signed_in.press("#prompt", "Control+Enter")
    await ends(signed_in, "failed")
    await signed_in.click("#raw > summary")

    for place in PLACES:
        await expect(signed_in.locator(place).first).to_have_text(HOSTILE)
    await expect(signed_in.locator("main img, main script")).to_have_count(0)
    assert await signed_in.evaluate("window.hacked") is None


async def test_the_pages_policy_refuses_markup_as_text(
    gateway: RunningGateway, browser: Browser
) -> None:
    """Even a mistake in the page could not turn text into markup."""
    page = await browser.new_page()  # this one is meant to complain
    await page.goto(f"{gateway.url}/debug.html")

    with pytest.raises(Error, match="TrustedHTML"):
        await page.evaluate("html => { document.body.innerHTML = html }", HOSTILE)

    assert await page.evaluate("window.hacked") is None
    await page.close()


@pytest.mark.parametrize("media_type", FORMATS)
async def test_stop_ends_the_run(runner: FakeRunner, signed_in: Page, media_type: str) -> None:
    """Stop cancels the run, and the page says so; that is no failure."""

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, text("so far"))
        await asyncio.Event().wait()

    runner.script = script

    await signed_in.select_option("#format", media_type)
    await signed_in.fill("#prompt", "x")
    await signed_in.click("#run")
    await expect(signed_in.locator("#answer")).to_have_text("so far")
    await signed_in.click("#stop")

    await ends(signed_in, "cancelled")
    await expect(signed_in.locator("#answer")).to_contain_text("so far")
    await expect(signed_in.locator("#error")).to_be_hidden()
    [stage] = runner.runs.values()
    assert stage.last == {"type": "run.cancelled", "by": "user"}


@pytest.mark.parametrize("media_type", FORMATS[:2])
async def test_a_cut_connection_is_mended(
    runner: FakeRunner, gateway: RunningGateway, signed_in: Page, media_type: str
) -> None:
    """The page comes back to its run and shows everything once."""
    go = asyncio.Event()

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, text("Grü"))
        await go.wait()
        await stage.send(text("ße"), FINISHED)

    runner.script = script
    begun: list[bytes] = []

    async def cut(route: Route) -> None:
        """Let the run begin, and hand on the first half of its stream alone."""
        async with gateway.http.post(
            f"{gateway.url}/opencode/stream",
            data=route.request.post_data_buffer,
            headers={**await route.request.all_headers()},
        ) as response:
            while "Grü".encode() not in b"".join(begun):
                begun.append(await response.content.readany())
            headers = {"X-Run-ID": response.headers["X-Run-ID"], "Content-Type": media_type}
            await route.fulfill(status=200, headers=headers, body=b"".join(begun))
        go.set()

    await signed_in.route("**/opencode/stream", cut)
    await signed_in.select_option("#format", media_type)
    await signed_in.fill("#prompt", "x")
    await signed_in.click("#run")
    await ends(signed_in, "finished")

    await expect(signed_in.locator("#answer")).to_have_text("Grüße")


async def test_a_reload_goes_on_with_the_run(runner: FakeRunner, signed_in: Page) -> None:
    """A page that is loaded anew shows the run that was on it from its beginning."""
    go = asyncio.Event()

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, text("vor"))
        await go.wait()
        await stage.send(text("her"), FINISHED)

    runner.script = script
    await signed_in.fill("#prompt", "x")
    await signed_in.click("#run")
    await expect(signed_in.locator("#answer")).to_have_text("vor")

    await signed_in.reload()
    await expect(signed_in.locator("#answer")).to_have_text("vor")
    go.set()
    await ends(signed_in, "finished")

    await expect(signed_in.locator("#answer")).to_have_text("vorher")
    assert len(runner.runs) == 1


async def test_what_opencode_asks_is_answered_with_a_button(
    runner: FakeRunner, signed_in: Page
) -> None:
    """The question and its answers are text; the one pressed reaches the run."""
    options = [{"id": "once", "name": "Allow once"}, {"id": "no", "name": HOSTILE}]
    asked = {"type": "permission.requested", "id": "p/1", "title": HOSTILE, "options": options}

    async def script(stage: Stage) -> None:
        await stage.send(STARTED, {**asked, "deadline": "2030-01-01T00:00:00Z"})
        permission, option = await stage.answers.get()
        resolved = {"type": "permission.resolved", "id": permission, "option": option}
        await stage.send({**resolved, "by": "user"}, FINISHED)

    runner.script = script
    await signed_in.select_option("#permission", "ask")
    await signed_in.fill("#prompt", "x")
    await signed_in.click("#run")
    question = signed_in.locator("#tools .question")
    await expect(question).to_contain_text(HOSTILE)
    await question.locator("button", has_text="Allow once").click()
    await ends(signed_in, "finished")

    await expect(question).to_contain_text("Allow once (user)")
    await expect(question.locator("button")).to_have_count(0)
    assert runner.started[-1]["permission"] == "ask"


async def test_tools_queue_and_usage_are_shown(runner: FakeRunner, signed_in: Page) -> None:
    """What a run tells besides text has its places on the page."""
    pause = asyncio.Event()

    async def script(stage: Stage) -> None:
        await stage.send({"type": "run.queued", "position": 3})
        await pause.wait()
        await stage.send(
            STARTED,
            {
                "type": "tool.started",
                "id": "t",
                "name": "execute",
                "title": "ls",
                "input": {"a": 1},
            },
            {"type": "tool.updated", "id": "t", "status": "completed", "output": "one\ntwo"},
            {**FINISHED, "usage": {"input_tokens": 12, "output_tokens": 34, "cost_usd": 0.5}},
        )

    runner.script = script
    await signed_in.fill("#prompt", "x")
    await signed_in.click("#run")
    await expect(signed_in.locator("#status")).to_have_text("wartet, Platz 3")
    pause.set()
    await ends(signed_in, "finished")

    tool = signed_in.locator("#tools .tool")
    await expect(tool.locator(".tool-title")).to_have_text("ls")
    await expect(tool.locator(".tool-state")).to_have_text("completed")
    await expect(tool.locator("pre").last).to_have_text("one\ntwo")
    await expect(signed_in.locator("[data-fact=factTokens] dd")).to_contain_text("12 ein, 34 aus")
    await expect(signed_in.locator("[data-fact=factCost] dd")).to_have_text("$0.5000")


async def test_a_refused_prompt_is_told_with_its_code_and_request(signed_in: Page) -> None:
    """What the gateway refuses is its sentence, its code and the id to ask the operator about."""
    await signed_in.fill("#prompt", "  ")
    await signed_in.click("#run")
    await ends(signed_in, "failed")

    await expect(signed_in.locator("#error-message")).to_have_text("Prompt ist erforderlich")
    detail = signed_in.locator("#error-detail")
    await expect(detail).to_contain_text("prompt-required · HTTP 400 · request_id ")


async def test_a_broken_connection_is_told(signed_in: Page) -> None:
    """An answer that ends without its last event, or never begins, is no success."""
    begun = "".join(f"data: {json.dumps(event)}\n\n" for event in (STARTED, text("half")))

    async def break_off(route: Route) -> None:
        await route.fulfill(status=200, content_type="text/event-stream", body=begun)

    await signed_in.route("**/opencode/stream", break_off)
    await signed_in.fill("#prompt", "x")
    await signed_in.click("#run")
    await ends(signed_in, "lost")
    await expect(signed_in.locator("#answer")).to_have_text("half")
    await expect(signed_in.locator("#error")).to_contain_text("vor dem Ende der Antwort")

    await signed_in.unroute("**/opencode/stream")
    await signed_in.route("**/opencode/stream", lambda route: route.abort())
    await signed_in.click("#run")
    await ends(signed_in, "failed")
    await expect(signed_in.locator("#error")).to_contain_text("nicht erreichbar")


async def test_the_chosen_model_is_asked(runner: FakeRunner, signed_in: Page) -> None:
    """The caller's models are offered, the default chosen first; a run names the choice."""
    await expect(signed_in.locator("#model")).to_have_value("demo/tools")
    await signed_in.fill("#key-input", "sk-0123456789")
    await signed_in.press("#key-input", "Enter")
    await expect(signed_in.locator("#model option")).to_have_count(2)

    await signed_in.select_option("#model", "openai/gpt-5")
    await signed_in.fill("#prompt", "x")
    await signed_in.click("#run")
    await ends(signed_in, "finished")

    assert runner.started[-1]["model"] == "openai/gpt-5"
