"""What a run's directory holds beside its events: never a prompt, a key or a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from runner.contract.requests import Language, RunState

if TYPE_CHECKING:
    from pathlib import Path

EVENTS_FILE = "events.ndjson"
_META_FILE = "meta.json"
_NEW_META_FILE = "meta.json.new"


class RunMeta(BaseModel):
    """One run, but for its events.

    Attributes:
        state: As it was when the run was accepted, got its slot, or ended.
        language: Of the sentences in its events.
        body: Keyed hash of what was asked for.
        idempotency: Keyed hash of the idempotency key, if one was given.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: RunState
    language: Language
    body: str
    idempotency: str | None = None


def write_meta(directory: Path, meta: RunMeta) -> None:
    """Put *meta* in the place of the old one: a reader sees one of them whole.

    Raises:
        OSError: It can't be written.
    """
    new = directory / _NEW_META_FILE
    new.write_bytes(meta.model_dump_json().encode())
    new.replace(directory / _META_FILE)


def read_meta(directory: Path) -> RunMeta | None:
    """Return the meta data in *directory*; None where there is none to be read."""
    try:
        return RunMeta.model_validate_json((directory / _META_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
