"""Halves of characters. Pure.

OpenCode is JavaScript, whose text is UTF-16: where a provider or a tool's limit cuts an emoji in
two, its JSON bears half a surrogate pair, which is no character and has no bytes.
"""

from __future__ import annotations

from typing import Any


def mended(value: Any) -> Any:
    """Return *value* with every string in it made of whole characters; lone halves become �."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list):
        return [mended(item) for item in value]
    if isinstance(value, dict):
        return {mended(name): mended(item) for name, item in value.items()}
    return value


def whole(text: str) -> str:
    """Return *text* with pairs of halves joined and lone halves replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class PieceJoiner:
    """Joins a text's pieces where one ends with the first half of a character."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return what is whole of the text so far."""
        text = self._held + piece
        self._held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return whole(text[: len(text) - len(self._held)])
