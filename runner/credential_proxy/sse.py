"""Watches a provider's answer go by: did it end properly, did it fail, what did it use? Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol

from runner.contract.wire import LineDecoder
from runner.credential_proxy.usage import usage_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.contract.events import Usage

_FINAL_TYPES = ("response.completed", "response.incomplete")
_FAILED_TYPES = ("response.failed", "error")


_MAX_PLAIN_BYTES = 4 << 20
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
"""OpenAI sends `"usage": null` with every piece."""


class Watch(Protocol):
    """Reads along without changing a byte.

    Attributes:
        ended: Whether the provider said that its answer is complete.
        failure: The provider's own words, if it reported a failure inside its answer.
    """

    ended: bool
    failure: str | None

    @property
    def usage(self) -> Usage | None:
        """What the call has used, as far as the provider told."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer."""


class PlainWatch:
    """Watches an answer that is not streamed: its length says where it ends."""

    def __init__(self) -> None:
        self._body = bytearray()
        self.ended = True
        self.failure: str | None = None

    @property
    def usage(self) -> Usage | None:
        """See `Watch.usage`."""
        document = _document(self._body)
        return None if document is None else usage_in(document)

    def feed(self, data: bytes) -> None:
        """See `Watch.feed`."""
        if len(self._body) <= _MAX_PLAIN_BYTES:
            self._body += data


class StreamWatch:
    """Watches server-sent events."""

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self.ended = False
        self.failure: str | None = None
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> None:
        """See `Watch.feed`."""
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
        document = _document(data)
        if document is None:
            return
        # Some providers tell it with each piece: each time all so far.
        self.usage = usage_in(document) or self.usage
        kind = document.get("type")
        if kind in _FINAL_TYPES or _has_finish_reason(document):
            self.ended = True
        elif kind in _FAILED_TYPES or (kind is None and document.get("error")):
            self.failure = _words(document)


def watch_of(content_type: str) -> Watch:
    """Return what watches an answer of *content_type*."""
    return StreamWatch() if content_type.startswith("text/event-stream") else PlainWatch()


def _document(data: bytes | bytearray) -> dict[str, Any] | None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _may_matter(data: bytes) -> bool:
    """Whether *data* may end or fail the stream, or tell usage; spares parsing every delta."""
    return (
        b'"finish_reason"' in data
        or b'"error"' in data
        or b"response.completed" in data
        or b"response.incomplete" in data
        or b"response.failed" in data
        or _USAGE.search(data) is not None
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
