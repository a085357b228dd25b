"""ACP updates, as OpenCode really sends them, become events."""

from __future__ import annotations

from typing import Any

import pytest

from runner.acp.translate import Translator
from runner.contract import events


def update(kind_of_update: str, /, **fields: Any) -> dict[str, Any]:
    return {"sessionId": "ses_1", "update": {"sessionUpdate": kind_of_update, **fields}}


def chunk(kind: str, text: str) -> dict[str, Any]:
    return update(kind, messageId="msg_1", content={"type": "text", "text": text})


CALL = update(
    "tool_call",
    toolCallId="c1",
    title="bash",
    kind="execute",
    status="pending",
    rawInput={"cwd": "/workspace"},
)
PROGRESS = update(
    "tool_call_update",
    toolCallId="c1",
    status="in_progress",
    kind="execute",
    title="ls -a",
    rawInput={"command": "ls -a", "cwd": "/workspace"},
)
DONE = update(
    "tool_call_update",
    toolCallId="c1",
    status="completed",
    content=[
        {"type": "content", "content": {"type": "text", "text": "a\n"}},
        {"type": "diff", "path": "/workspace/f", "oldText": "x", "newText": "y"},
    ],
)


def test_text_and_thoughts_pass_piece_by_piece() -> None:
    """Byte for byte, white space included."""
    translator = Translator()

    assert translator.translate(chunk("agent_message_chunk", " ü\n")) == [
        events.TextDelta(text=" ü\n")
    ]
    assert translator.translate(chunk("agent_thought_chunk", "hm")) == [
        events.ThoughtDelta(text="hm")
    ]


def test_a_tool_starts_when_its_input_is_known() -> None:
    """OpenCode announces a call before the model has written its arguments."""
    translator = Translator()

    assert translator.translate(CALL) == []
    started, progress = translator.translate(PROGRESS)
    (done,) = translator.translate(DONE)

    assert started == events.ToolStarted(
        id="c1", name="execute", title="ls -a", input={"command": "ls -a", "cwd": "/workspace"}
    )
    assert progress == events.ToolUpdated(id="c1", status="in_progress")
    assert done == events.ToolUpdated(
        id="c1",
        status="completed",
        output="a\n",
        diff=events.ToolDiff(path="/workspace/f", old_text="x", new_text="y"),
    )


def test_a_plan_is_told_whole() -> None:
    """Todo lists become plan.updated."""
    entries = [{"content": "one", "status": "in_progress", "priority": "high"}]

    assert Translator().translate(update("plan", entries=entries)) == [
        events.PlanUpdated(
            entries=[events.PlanEntry(content="one", status="in_progress", priority="high")]
        )
    ]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"sessionId": "s"},
        update("no_such_update"),
        update("available_commands_update", availableCommands=[]),
        update("usage_update", used=5, size=10),
        chunk("agent_message_chunk", ""),
        update("agent_message_chunk", content={"type": "image", "data": "", "mimeType": "a/b"}),
    ],
)
def test_what_nobody_shows_is_passed_over(params: dict[str, Any]) -> None:
    """Also what a newer OpenCode may send."""
    assert Translator().translate(params) == []


def test_a_character_cut_in_two_is_joined_again() -> None:
    """A provider may cut an emoji's two halves apart; text and thoughts are joined apart."""
    translator = Translator()
    halves = "a\ud83c", "\udf0d b"

    first, thought, second, rest = [
        translator.translate(chunk(kind, text))
        for kind, text in [
            ("agent_message_chunk", halves[0]),
            ("agent_thought_chunk", halves[0]),
            ("agent_message_chunk", halves[1]),
            ("agent_thought_chunk", "!"),
        ]
    ]

    assert first == [events.TextDelta(text="a")]
    assert thought == [events.ThoughtDelta(text="a")]
    assert second == [events.TextDelta(text="🌍 b")]
    assert rest == [events.ThoughtDelta(text="\ufffd!")]


def test_half_a_character_in_a_tools_output_is_replaced() -> None:
    """It could be neither stored nor sent; the rest of the output is told."""
    cut = update(
        "tool_call_update",
        toolCallId="c1",
        status="completed",
        content=[{"type": "content", "content": {"type": "text", "text": "ok \ud83c"}}],
    )

    told = Translator().translate(cut)

    assert told == [events.ToolUpdated(id="c1", status="completed", output="ok \ufffd")]
    assert told[0].model_dump_json()
