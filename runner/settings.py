"""The runner's settings: read once by `__main__`, frozen, handed down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr, field_validator
from pydantic_settings import NoDecode

from runner.egress.policy import parse_policy
from runner.models.prices import parse_prices
from runner.plumbing.settings import ServiceSettings, load_settings

# Names on the same machine that begin with RUNNER_ and belong to the gateway.
_OTHERS = frozenset({"RUNNER_URL"})
_OURS = frozenset({"RUNNER_TOKEN"})


class Settings(ServiceSettings):
    """Settings of the runner; the names are the environment variables, in lower case."""

    data_dir: Path = Field(default=Path(".data"), description="Where the runner writes.")
    runner_host: str = Field(default="127.0.0.1", description="Address the runner listens on.")
    port: int = Field(default=3001, ge=0, le=65535, description="The runner's port.")
    runner_token: SecretStr = Field(description="What the gateway shows the runner.")

    openai_api_key: SecretStr | None = Field(
        default=None, description="The operator's key, for users without one."
    )
    openai_base_url: str = Field(
        default="https://api.openai.com/v1", description="Another OpenAI-compatible provider."
    )
    openai_api: Literal["responses", "chat"] = Field(
        default="responses", description="`chat` for a provider with only chat completions."
    )
    demo: Literal["auto", "on", "off"] = Field(
        default="auto", description="The two models that need no key; auto: without operator key."
    )
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Allow-list, comma separated, as `provider/model`."
    )
    default_model: str | None = Field(
        default=None, description="What `model=` means when left out."
    )
    runner_prices: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Dollars a million tokens, comma separated, as "
        "`provider/model=input/cached/output`; OpenAI's list prices are known.",
    )

    max_concurrent_processes: PositiveInt = Field(default=10, description="Slots.")
    runner_queue_size: int = Field(default=100, ge=0, description="Waiting runs in all.")
    gateway_runs_per_user: PositiveInt = Field(
        default=2, description="Running at once for one user; more of the same user wait."
    )
    runner_warm_pool: int = Field(
        default=2, ge=0, description="Sandboxes kept ready, besides the slots; 0: every run boots."
    )
    runner_warm_max_age_s: PositiveFloat = Field(
        default=1800.0, description="One that was ready for so long is replaced."
    )
    runner_warm_min_free_mb: int = Field(
        default=1024, ge=0, description="With less memory left than that, fewer are kept ready."
    )
    runner_sandbox: Literal["bubblewrap", "docker", "process"] = Field(
        default="bubblewrap",
        description="What keeps tenants apart: `bubblewrap`, `docker`; `process`: nothing.",
    )
    runner_spawner_socket: Path | None = Field(
        default=None, description="With `docker`: where the spawner listens, who holds the engine."
    )
    runner_memory_mb: PositiveInt = Field(default=2048, description="Memory per sandbox.")
    runner_pids: PositiveInt = Field(default=256, description="Processes per sandbox.")
    runner_cpus: PositiveFloat = Field(default=1.0, description="CPUs per sandbox.")
    runner_disk_mb: PositiveInt = Field(default=1024, description="Disk per sandbox.")
    runner_run_timeout_s: PositiveFloat = Field(default=900.0, description="Longest run.")
    runner_idle_timeout_s: PositiveFloat = Field(default=180.0, description="Longest silence.")
    runner_provider_timeout_s: PositiveFloat = Field(
        default=20.0, description="Longest wait for a provider's first sign of life."
    )
    runner_drain_s: NonNegativeFloat = Field(
        default=0.0,
        description="How long runs that are on may go on after SIGTERM, while new ones wait; a "
        "second SIGTERM ends them.",
    )
    runner_retention_s: PositiveFloat = Field(
        default=86400.0,
        description="How long a finished run's events can be read again, and a repeated "
        "Idempotency-Key is known (a day at most).",
    )
    runner_attach_grace_s: PositiveFloat = Field(
        default=5.0, description="How long an attached run lives without a reader."
    )
    runner_run_log_mb: PositiveInt = Field(
        default=64, description="Events kept per run; what is more becomes a `stream.gap`."
    )
    runner_output_mb: PositiveInt = Field(
        default=64, description="Text and tool output per run; more ends it (`output-limit`)."
    )
    runner_permission: Literal["allow", "ask", "deny"] = Field(
        default="deny",
        description="Answer to the agent's permission requests; `ask`: it asks before commands "
        "and edits, and a person decides.",
    )
    runner_permission_timeout_s: PositiveFloat = Field(
        default=120.0, description="How long a person has for that; then the answer is no."
    )
    runner_max_body_bytes: PositiveInt = Field(
        default=16 << 20, description="Largest request the gateway may send."
    )
    runner_egress_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts that sandboxes may reach by HTTPS, comma separated: `host`, "
        "`host:port`, `*.domain`.",
    )
    temp_dir_prefix: str = Field(
        default="opencode-", pattern=r"^[A-Za-z0-9._-]+$", description="Of sandbox directories."
    )
    opencode_bin: Path | None = Field(
        default=None, description="OpenCode's binary; left out: the one `make` installed."
    )
    runner_metrics_host: str = Field(
        default="127.0.0.1", description="Address of the runner's Prometheus metrics."
    )
    runner_metrics_port: int = Field(
        default=9102, ge=0, le=65535, description="Their port (`/metrics`); 0: none."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="`debug`, `info`, `warning` or `error`."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`json` or `console`; auto: JSON when not on a terminal."
    )

    @field_validator("models", "runner_prices", "runner_egress_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("models")
    @classmethod
    def _named_with_provider(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [name for name in value if not all(name.partition("/"))]:
            raise ValueError(f"write models as provider/model, not {', '.join(bad)}")
        return value

    @field_validator("runner_egress_allow")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_policy(value)
        return value

    @field_validator("runner_prices")
    @classmethod
    def _are_prices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_prices(value)
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator(
        *("openai_api_key", "opencode_bin", "default_model", "runner_spawner_socket"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        """`OPENAI_API_KEY=` in a compose file means: none."""
        secret = value.get_secret_value() if isinstance(value, SecretStr) else value
        return None if isinstance(secret, str) and not secret.strip() else value


def load() -> Settings:
    """Read the settings; see `load_settings` for the errors."""
    return load_settings(Settings, prefix="RUNNER_", others=_OTHERS, ours=_OURS)
