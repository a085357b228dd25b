"""Bodies of the public API."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from runner.contract.requests import ModelInfo, QueueHealth, SandboxHealth

_MAX_KEY_CHARS = 1000  # encrypted it has to fit the field of 4000


class StreamRequest(BaseModel):
    """A prompt: the body of `POST /opencode/stream`, or the query of `GET`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str | None = Field(default=None, description="What OpenCode shall do. Required.")
    model: str | None = Field(
        default=None, max_length=200, description="`provider/model`; left out: the default."
    )
    session_id: str | None = Field(
        default=None, max_length=200, description="Session to go on with; left out: a new one."
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

    version: str | None = None
    sandbox: SandboxHealth | None = None
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
