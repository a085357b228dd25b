"""What the gateway asks of the runner, and what it learns about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

RUN_ID_PATTERN = r"^[a-z0-9]{15}$"
"""15 characters, like a PocketBase record id, so that a run's record can bear the run's id."""

RunId = Annotated[str, StringConstraints(pattern=RUN_ID_PATTERN)]
Language = Literal["de", "en"]


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
    version: str
    opencode: OpenCodeHealth
    queue: QueueHealth
    pool: PoolHealth = PoolHealth()
    sandbox: SandboxHealth
    models: dict[str, str] = Field(
        default_factory=dict, description="State of the models that need no key."
    )
