"""ACP session updates become events of the run. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from acp import schema
from pydantic import ValidationError

from runner.acp.surrogates import PieceJoiner, mended
from runner.contract import events

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_OUTPUT_CHARS = 100_000
"""A tool's output beyond this is cut in the event: the agent has it whole."""


class Translator:
    """Translates one session's updates; keeps a tool's start back until its input is known."""

    def __init__(self) -> None:
        self._unstarted: dict[str, schema.ToolCallStart] = {}
        self._pieces: defaultdict[str, PieceJoiner] = defaultdict(PieceJoiner)

    def translate(self, params: dict[str, Any]) -> list[events.RunEvent]:
        """Return the events (unnumbered) that a `session/update`'s *params* mean.

        Updates nobody shows (available commands, modes, context size) and unknown ones mean
        none.
        """
        try:
            update = schema.SessionNotification.model_validate(self._whole(params)).update
        except ValidationError:
            return []
        told: list[events.RunEvent] = []
        match update:
            case schema.AgentMessageChunk(content=schema.TextContentBlock(text=text)) if text:
                told = [events.TextDelta(text=text)]
            case schema.AgentThoughtChunk(content=schema.TextContentBlock(text=text)) if text:
                told = [events.ThoughtDelta(text=text)]
            case schema.ToolCallStart():
                told = self._tool_call(update)
            case schema.ToolCallProgress():
                told = self._tool_progress(update)
            case schema.AgentPlanUpdate():
                told = [_plan(update)]
            case _:
                pass
        return told

    def _whole(self, params: dict[str, Any]) -> Any:
        """Return *params* without half characters, but for those the next piece completes."""
        update = params.get("update")
        content = update.get("content") if isinstance(update, dict) else None
        if isinstance(update, dict) and isinstance(content, dict) and "text" in content:
            pieces = self._pieces[str(update.get("sessionUpdate"))]
            content = {**content, "text": pieces.feed(str(content["text"]))}
            params = {**params, "update": {**update, "content": content}}
        return mended(params)

    def _tool_call(self, call: schema.ToolCallStart) -> list[events.RunEvent]:
        if call.status in {None, "pending"}:  # announced before the model has written it
            self._unstarted[call.tool_call_id] = call
            return []
        return [_tool_started(call, call.raw_input, call.title)]

    def _tool_progress(self, update: schema.ToolCallProgress) -> list[events.RunEvent]:
        told: list[events.RunEvent] = []
        if (call := self._unstarted.pop(update.tool_call_id, None)) is not None:
            told.append(_tool_started(call, update.raw_input, update.title or call.title))
        output, diff = _content(update.content or ())
        told.append(
            events.ToolUpdated(
                id=update.tool_call_id, status=update.status, output=output, diff=diff
            )
        )
        return told


def _tool_started(call: schema.ToolCallStart, given: Any, title: str) -> events.ToolStarted:
    return events.ToolStarted(
        id=call.tool_call_id, name=call.kind or "other", title=title, input=given
    )


def _plan(update: schema.AgentPlanUpdate) -> events.PlanUpdated:
    return events.PlanUpdated(
        entries=[
            events.PlanEntry(content=e.content, status=e.status, priority=e.priority)
            for e in update.entries
        ]
    )


def _content(content: Sequence[Any]) -> tuple[str | None, events.ToolDiff | None]:
    """Return the text and the last diff among a tool's content blocks."""
    texts: list[str] = []
    diff: events.ToolDiff | None = None
    for block in content:
        match block:
            case schema.ContentToolCallContent(content=schema.TextContentBlock(text=text)):
                texts.append(text)
            case schema.FileEditToolCallContent():
                diff = events.ToolDiff(
                    path=block.path, old_text=block.old_text, new_text=block.new_text
                )
    output = "".join(texts)[:_MAX_OUTPUT_CHARS] if texts else None
    return output, diff
