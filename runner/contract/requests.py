"""What the gateway asks of the runner, and what it learns about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, SecretStr, StringConstraints

from runner.contract.events import Usage

RUN_ID_PATTERN = r"^[a-z0-9]{15}$"
"""15 characters, like a PocketBase record id, so that a run's record can bear the run's id."""

RunId = Annotated[str, StringConstraints(pattern=RUN_ID_PATTERN)]
Language = Literal["de", "en"]
Permission = Literal["allow", "ask", "deny"]
Status = Literal["queued", "running", "finished", "failed", "cancelled"]
Phase = Literal["queued", "booting", "model", "tool", "person", "ended"]


class StartRun(BaseModel):
    """Body of `POST /runs`: one prompt of one subject."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: RunId
    subject: str = Field(min_length=1, max_length=64, description="Whose run: an opaque word.")
    prompt: str = Field(min_length=1)
    model: str | None = Field(default=None, description="`provider/model`; left out: the default.")
    key: SecretStr | None = Field(
        default=None, description="The subject's own key; without one the operator's is used."
    )
    language: Language = "de"
    attached: bool = Field(
        default=False, description="Cancelled when nobody reads its events for a grace time."
    )
    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="The same key and body of the same subject, within a day, is the same run.",
    )
    join_within_s: PositiveFloat | None = Field(
        default=None,
        description="Without an idempotency key: join the subject's run of the same model and "
        "prompt that was accepted at most so long ago and has not ended.",
    )
    come_back: bool = Field(
        default=False,
        description="Start nothing: name the subject's latest run of the same request, or "
        "rather one that has just lost its readers; 404 if there is none.",
    )
    permission: Permission | None = Field(
        default=None,
        description="What happens when the agent asks whether it may; left out: the operator's "
        "choice. `ask` and `deny` are always possible, `allow` where the operator allows.",
    )


class RunAccepted(BaseModel):
    """Answer (202) to `POST /runs`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: RunId = Field(description="Of the run that was joined, where one was.")
    joined: bool = Field(default=False, description="Whether the run was there before.")


class RunState(BaseModel):
    """What is known of a run: answer to `GET /runs/{id}` and `DELETE /runs/{id}`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: RunId
    subject: str
    status: Status
    phase: Phase = Field(description="Whom the run waits for.")
    position: int | None = Field(default=None, description="In the queue; 1 is next.")
    model: str = Field(description="`provider/model`.")
    created_at: str = Field(description="When it was accepted; ISO 8601, UTC.")
    started_at: str | None = Field(default=None, description="When it got its slot.")
    ended_at: str | None = None
    queued_s: float | None = Field(default=None, description="Seconds it waited for its slot.")
    duration_s: float | None = Field(default=None, description="From its acceptance to its end.")
    last_seq: int | None = Field(default=None, description="Number of its latest event.")
    usage: Usage | None = None
    error_code: str | None = Field(default=None, description="Of `run.failed`.")
    cancelled_by: str | None = Field(default=None, description="Of `run.cancelled`.")


class RunList(BaseModel):
    """Answer to `GET /runs`: newest first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    runs: list[RunState]


class PermissionAnswer(BaseModel):
    """Body of `POST /runs/{id}/permissions/{pid}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    option: str = Field(min_length=1, max_length=128, description="Id of the option chosen.")


class ModelInfo(BaseModel):
    """One model that a caller may name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(description="`provider/model`.")
    name: str
    needs_key: bool = Field(description="Whether it only answers with a key.")
    note: str = Field(default="", description="What to know before choosing it.")


class ModelList(BaseModel):
    """Body of the runner's `GET /models`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    models: list[ModelInfo]
    operator_key: bool = Field(description="Whether callers without a key have the operator's.")
    default_with_key: str | None
    default_without_key: str | None


class OpenCodeHealth(BaseModel):
    """Whether the agent can be started."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["ok", "down"]
    version: str | None = None
    reason: str | None = None


class QueueHealth(BaseModel):
    """How full the runner is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slots: int
    running: int
    waiting: int
    size: int = Field(description="How many runs may wait.")


class PoolHealth(BaseModel):
    """How many sandboxes are kept ready."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: int = Field(default=0, description="How many there should be.")
    idle: int = Field(default=0, description="How many are ready.")
    booting: int = Field(default=0, description="How many are on their way.")


class SandboxHealth(BaseModel):
    """What keeps tenants apart."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    backend: str
    limits: dict[str, str] = Field(
        default_factory=dict, description="Limit → what enforces it, e.g. `memory: cgroup`."
    )


class RunnerHealth(BaseModel):
    """Body of the runner's `GET /health`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["ok", "degraded", "down"]
    draining: bool = Field(
        default=False, description="Whether it takes no new runs, because it is about to end."
    )
    version: str
    opencode: OpenCodeHealth
    queue: QueueHealth
    pool: PoolHealth = PoolHealth()
    sandbox: SandboxHealth
    models: dict[str, str] = Field(
        default_factory=dict, description="State of the models that need no key."
    )
