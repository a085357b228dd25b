"""Bodies of the public API."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from runner.contract.events import Usage
from runner.contract.requests import (
    ModelInfo,
    Permission,
    Phase,
    PoolHealth,
    QueueHealth,
    RunId,
    RunState,
    SandboxHealth,
    Status,
)

_MAX_KEY_CHARS = 1000  # encrypted it has to fit the field of 4000


class StreamRequest(BaseModel):
    """A prompt: the body of `POST /opencode/runs` and `/opencode/stream`, or the query of `GET`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str | None = Field(default=None, description="What OpenCode shall do. Required.")
    model: str | None = Field(
        default=None, max_length=200, description="`provider/model`; left out: the default."
    )
    session_id: str | None = Field(
        default=None, max_length=200, description="Session to go on with; left out: a new one."
    )
    permission: Permission | None = Field(
        default=None,
        description="What happens when OpenCode asks whether it may: at most what the operator "
        "allows, which is the default.",
    )

    @field_validator("prompt", "model", "session_id")
    @classmethod
    def _without_nul(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("must not contain NUL characters")
        return value

    @field_validator("model", "session_id")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return (value or "").strip() or None


class RunAccepted(BaseModel):
    """Body of `POST /opencode/runs`."""

    model_config = ConfigDict(frozen=True)

    id: RunId


class RunInfo(BaseModel):
    """How a run is, or was."""

    model_config = ConfigDict(frozen=True)

    id: RunId
    status: Status
    phase: Phase | None = Field(
        default=None, description="Whom it waits for; null where nobody can tell."
    )
    position: int | None = Field(default=None, description="Place in the queue, 1 is next.")
    model: str | None = Field(default=None, description="`provider/model`.")
    prompt: str | None = Field(
        default=None, description="As much of it as is stored; in the list only."
    )
    created_at: datetime = Field(description="When it was accepted.")
    started_at: datetime | None = Field(default=None, description="When it got its slot.")
    ended_at: datetime | None = None
    queued_s: float | None = None
    duration_s: float | None = None
    last_seq: int | None = Field(
        default=None, description="Number of its latest event; null once those are gone."
    )
    usage: Usage | None = None
    error_code: str | None = Field(default=None, description="What `run.failed` said.")
    cancelled_by: str | None = Field(default=None, description="What `run.cancelled` said.")


class RunPage(BaseModel):
    """Body of `GET /opencode/runs`: newest first."""

    model_config = ConfigDict(frozen=True)

    page: int
    per_page: int
    total: int = Field(description="Of all pages.")
    items: list[RunInfo]


class PageQuery(BaseModel):
    """Query of `GET /opencode/runs`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    page: int = Field(default=1, ge=1, le=100_000)
    per_page: int = Field(default=30, ge=1, le=100)


class UsageQuery(BaseModel):
    """Query of `GET /opencode/usage`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: int = Field(default=30, ge=1, le=366, description="How many of the latest with runs.")


class UsageSum(BaseModel):
    """What some runs have used; those that go on count when they end."""

    model_config = ConfigDict(frozen=True)

    runs: int = 0
    input_tokens: int = Field(default=0, description="Cached ones included.")
    output_tokens: int = Field(default=0, description="Those of the reasoning included.")
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = Field(default=0, description="As far as prices are known.")


class UsageOfDay(UsageSum):
    """What the runs that began on one day have used."""

    day: date = Field(description="In UTC.")


class UsageReport(BaseModel):
    """Body of `GET /opencode/usage`."""

    model_config = ConfigDict(frozen=True)

    total: UsageSum = Field(description="Of all runs there are records of.")
    days: list[UsageOfDay] = Field(description="Latest first; days without runs are left out.")


class EventsQuery(BaseModel):
    """Query of `GET /opencode/runs/{id}/events`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: int | None = Field(
        default=None,
        ge=0,
        lt=1 << 53,
        description="Number of the last event you have. A `Last-Event-ID` header outdoes it.",
    )


def info_of_state(state: RunState) -> RunInfo:
    """Return what callers learn of what the runner knows."""
    fields = state.model_dump(exclude={"run_id", "subject"})
    return RunInfo(id=state.run_id, **fields)


def info_of_record(record: dict[str, Any]) -> RunInfo:
    """Return what callers learn of a record of PocketBase's collection `runs`."""
    ended = record["ended"] or None
    return RunInfo(
        id=record["id"],
        status=record["status"],
        phase="ended" if ended else None,
        model=record["model"] or None,
        prompt=record["prompt"] or None,
        created_at=record["started"],
        ended_at=ended,
        queued_s=record["queued_s"] if ended else None,
        duration_s=record["duration_s"] if ended else None,
        usage=Usage.model_validate(record) if ended else None,
        error_code=record["error_code"] or None,
    )


class KeyUpdate(BaseModel):
    """Body of `PUT /opencode/key`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: SecretStr = Field(description="The caller's API key at the provider.")

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if not key or len(key) > _MAX_KEY_CHARS:
            raise ValueError(f"must have 1 to {_MAX_KEY_CHARS} characters")
        if not all("!" <= char <= "~" for char in key) or key.startswith("enc:"):
            raise ValueError("must be an API key: printable ASCII without spaces")
        return SecretStr(key)


class KeyStatus(BaseModel):
    """What callers learn about their own key."""

    model_config = ConfigDict(frozen=True)

    set: bool
    last4: str | None = Field(description="Its last characters; null if not set or unreadable.")


class UsableModels(BaseModel):
    """Body of `GET /opencode/models`: what this caller may use."""

    model_config = ConfigDict(frozen=True)

    default: str | None = Field(description="What is used when `model` is left out.")
    models: list[ModelInfo]


State = Literal["ok", "degraded", "down", "unknown"]


class PartHealth(BaseModel):
    """State of one part."""

    model_config = ConfigDict(frozen=True)

    status: State


class RunnerPart(PartHealth):
    """State of the runner."""

    reason: str | None = Field(default=None, description="Why it is not ok, where that is known.")
    version: str | None = None
    sandbox: SandboxHealth | None = None
    pool: PoolHealth | None = None
    models: dict[str, str] = Field(default_factory=dict)


class OpenCodePart(PartHealth):
    """State of OpenCode."""

    version: str | None = None
    reason: str | None = None


class Health(BaseModel):
    """Body of `GET /opencode/health`."""

    model_config = ConfigDict(frozen=True)

    status: Literal["ok", "degraded", "down"]
    version: str
    pocketbase: PartHealth
    runner: RunnerPart
    opencode: OpenCodePart
    queue: QueueHealth | None
