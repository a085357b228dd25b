"""Watches a provider's server-sent events go by: did it end properly, did it fail? Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.contract.wire import LineDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

_FINAL_TYPES = ("response.completed", "response.incomplete")
_FAILED_TYPES = ("response.failed", "error")


class StreamWatch:
    """Reads along without changing a byte.

    Attributes:
        ended: Whether the provider said that its answer is complete.
        failure: The provider's own words, if it reported a failure inside the stream.
    """

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self.ended = False
        self.failure: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._look_at(self._lines.feed(data))

    def _look_at(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                self.ended = True
            elif _may_matter(data):
                self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            document = json.loads(data)
        except ValueError:
            return
        if not isinstance(document, dict):
            return
        kind = document.get("type")
        if kind in _FINAL_TYPES or _has_finish_reason(document):
            self.ended = True
        elif kind in _FAILED_TYPES or (kind is None and document.get("error")):
            self.failure = _words(document)


def _may_matter(data: bytes) -> bool:
    """Whether *data* may end or fail the stream; spares parsing every delta."""
    return (
        b'"finish_reason"' in data
        or b'"error"' in data
        or b"response.completed" in data
        or b"response.incomplete" in data
        or b"response.failed" in data
    )


def _has_finish_reason(document: dict[str, object]) -> bool:
    choices = document.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    )


def _words(document: dict[str, object]) -> str:
    """Return the message of an error event, wherever its dialect puts it."""
    response = document.get("response")
    holder = response if isinstance(response, dict) else document
    error = holder.get("error", holder)
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else "?"
