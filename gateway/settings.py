"""The gateway's settings: read once by `__main__`, frozen, handed down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
)
from pydantic_settings import NoDecode

from runner.plumbing.settings import ServiceSettings, load_settings

# Names on the same machine that begin with GATEWAY_ and belong to the runner.
_OTHERS = frozenset({"GATEWAY_RUNS_PER_USER"})
_OURS = frozenset(
    {"RUNNER_TOKEN", "PB_SUPERUSER_PASSWORD", "KEY_ENCRYPTION_KEYS", "KEY_SEALING_KEY"}
)


class Settings(ServiceSettings):
    """Settings of the gateway; the names are the environment variables, in lower case."""

    data_dir: Path = Field(
        default=Path(".data"), description="Where records wait while PocketBase is away."
    )
    gateway_host: str = Field(default="127.0.0.1", description="Address of the public origin.")
    gateway_port: int = Field(default=8080, ge=0, le=65535, description="Its port.")
    gateway_workers: PositiveInt = Field(
        default=1, le=64, description="Processes that serve that port together."
    )
    pocketbase_url: str = Field(
        default="http://127.0.0.1:8090", description="Where the gateway finds PocketBase."
    )
    runner_url: str = Field(
        default="http://127.0.0.1:3001", description="Where the gateway finds the runner."
    )
    runner_token: SecretStr = Field(min_length=1, description="What the gateway shows the runner.")
    pb_superuser_email: str = Field(
        default="admin@example.com", description="The gateway's service account in PocketBase."
    )
    pb_superuser_password: SecretStr = Field(min_length=1, description="Its password.")
    key_encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        description="Fernet keys, comma separated, newest first: they encrypt users' API keys."
    )
    key_sealing_key: SecretStr | None = Field(
        default=None,
        description="32 characters that PocketBase's hook seals typed-in API keys with.",
    )
    gateway_max_prompt_bytes: PositiveInt = Field(
        default=200_000, description="Larger prompts get 413."
    )
    gateway_token_cache_s: PositiveFloat = Field(
        default=30.0, le=300, description="Longest trust in a checked token."
    )
    gateway_allow_anonymous: bool = Field(
        default=False,
        description="Let callers without a token run (with the operator's key only).",
    )
    gateway_debounce_s: NonNegativeFloat = Field(
        default=1.0,
        description="The same prompt again within so long joins the run that is on; 0: never.",
    )
    gateway_store_prompts: Literal["none", "preview", "full"] = Field(
        default="preview",
        description="How much of a prompt is kept in `runs`; a preview is 200 characters.",
    )
    gateway_runner_patience_s: PositiveFloat = Field(
        default=20.0,
        description="How long a stream, or a new run, waits for a runner that went away.",
    )
    gateway_reconcile_s: PositiveFloat = Field(
        default=30.0, description="How often unfinished records are compared with the runner."
    )
    gateway_heartbeat_s: PositiveFloat = Field(
        default=15.0, description="Silence after which a stream sends a heartbeat."
    )
    gateway_write_timeout_s: PositiveFloat = Field(
        default=60.0, description="A reader that takes nothing for so long is cut off."
    )
    gateway_language: Literal["de", "en"] = Field(
        default="de", description="Messages without Accept-Language."
    )
    gateway_metrics_host: str = Field(
        default="127.0.0.1", description="Address of the gateway's Prometheus metrics."
    )
    gateway_metrics_port: int = Field(
        default=9101,
        ge=0,
        le=65535,
        description="Their port (`/metrics`); 0: none. Of several workers each has one: 9101, "
        "9111, 9121, …",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @property
    def spool_dir(self) -> Path:
        """Where records wait."""
        return self.data_dir / "spool"

    @field_validator("key_encryption_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return value

    @field_validator("key_sealing_key", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        """`KEY_SEALING_KEY=` in a compose file means: none."""
        secret = value.get_secret_value() if isinstance(value, SecretStr) else value
        return None if isinstance(secret, str) and not secret.strip() else value

    @field_validator("pocketbase_url", "runner_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")


def load() -> Settings:
    """Read the settings; see `load_settings` for the errors."""
    return load_settings(Settings, prefix="GATEWAY_", others=_OTHERS, ours=_OURS)
