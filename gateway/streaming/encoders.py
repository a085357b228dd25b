"""Bytes for events in the three formats callers may ask for; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.auth.tokens import one_line
from gateway.streaming.negotiate import negotiate
from runner.contract.events import StreamGap
from runner.contract.headers import NDJSON
from runner.contract.messages import sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.streaming.lines import EventLine
    from runner.contract.requests import Language


class Encoder(Protocol):
    """Bytes for events, and for silence."""

    @property
    def content_type(self) -> str:
        """Value of the response's `Content-Type`."""

    def preamble(self) -> bytes:
        """Return the bytes that stand before all events."""

    def encode(self, line: EventLine) -> bytes:
        """Return the bytes for one event; empty if this format has no place for it."""

    def heartbeat(self) -> bytes:
        """Return bytes a reader ignores; empty if the format has none."""


class TextEncoder:
    """The agent's text, and one last line that says how it went. For terminals."""

    content_type = "text/plain; charset=utf-8"

    def __init__(self, *, user_name: str, language: Language) -> None:
        self._user_name = user_name
        self._language = language

    def preamble(self) -> bytes:
        """See `Encoder.preamble`."""
        return b""

    def encode(self, line: EventLine) -> bytes:
        """See `Encoder.encode`."""
        match line.type:
            case "text.delta":
                text = str(line.fields().get("text", ""))
            case "stream.gap":
                text = f"\n[… {self._missing(line)}]\n"
            case "run.finished":
                text = f"\n[✔ User {self._user_name} - Fertig!]\n"
            case "run.failed":
                text = f"\n[ERROR] {one_line(str(line.fields().get('message', '')))}\n"
            case "run.cancelled":
                text = f"\n[ERROR] {sentence('run-cancelled', self._language)}\n"
            case _:
                text = ""
        # A lone surrogate half, escaped in JSON, has no bytes of its own.
        return text.encode(errors="replace")

    def heartbeat(self) -> bytes:
        """See `Encoder.heartbeat`."""
        return b""

    def _missing(self, line: EventLine) -> str:
        gap = StreamGap.model_validate(line.fields())
        return sentence("events-missing", self._language, count=gap.to - gap.from_ + 1)


class SseEncoder:
    """Server-sent events, for browsers."""

    content_type = "text/event-stream"

    def preamble(self) -> bytes:
        """Tell a browser how soon to come back (ms) where the connection breaks."""
        return b"retry: 2000\n\n"

    def encode(self, line: EventLine) -> bytes:
        """See `Encoder.encode`."""
        number = b"id: %d\n" % line.seq if line.is_logged else b""
        return b"%bevent: %b\ndata: %b\n\n" % (number, line.type.encode(), line.raw)

    def heartbeat(self) -> bytes:
        """See `Encoder.heartbeat`."""
        return b": heartbeat\n\n"


class NdjsonEncoder:
    """One event a line, for programs."""

    content_type = NDJSON

    def preamble(self) -> bytes:
        """See `Encoder.preamble`."""
        return b""

    def encode(self, line: EventLine) -> bytes:
        """See `Encoder.encode`."""
        return line.raw + b"\n"

    def heartbeat(self) -> bytes:
        """See `Encoder.heartbeat`."""
        return b"\n"


def encoder_for(accept: str | None, *, user_name: str, language: Language) -> Encoder:
    """Return the encoder for an `Accept` header; plain text where it leaves the choice.

    Raises:
        NotAcceptable: It accepts none of the three formats.
    """
    offers: dict[str, Callable[[], Encoder]] = {
        "text/plain": lambda: TextEncoder(user_name=user_name, language=language),
        "text/event-stream": SseEncoder,
        NDJSON: NdjsonEncoder,
    }
    # `curl --json` and others who want JSON of some kind get JSON of a kind.
    return offers[negotiate(accept, list(offers), aliases={"application/json": NDJSON})]()


_: tuple[type[Encoder], ...] = (TextEncoder, SseEncoder, NdjsonEncoder)
