"""The recipe for OpenCode: its binary, its locked-down configuration, its HOME. Pure but for
looking at files.

Every switch was measured to be needed; see docs/opencode.md.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.contract.problems import OpenCodeUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.credential_proxy.upstreams import Api
    from runner.sandbox.base import Inside

PINNED_VERSION = "1.18.33"
_PROJECT = Path(__file__).parents[2]
_NPM_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}

_SWITCHES = (
    *("OPENCODE_DISABLE_PROJECT_CONFIG", "OPENCODE_PURE", "OPENCODE_DISABLE_DEFAULT_PLUGINS"),
    *("OPENCODE_DISABLE_MODELS_FETCH", "OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_DISABLE_SHARE"),
    *("OPENCODE_DISABLE_LSP_DOWNLOAD", "OPENCODE_DISABLE_EXTERNAL_SKILLS"),
    "OPENCODE_DISABLE_CLAUDE_CODE",
)
_TOKEN_VARIABLE = "RUN_TOKEN"  # noqa: S105 - a name

_SDKS: dict[Api, str] = {"responses": "@ai-sdk/openai", "chat": "@ai-sdk/openai-compatible"}
"""Both are inside OpenCode's binary: nothing is downloaded."""

_PERMISSIONS: dict[str, Any] = {
    "*": "deny",
    "read": "allow",
    "edit": "allow",
    "glob": "allow",
    "grep": "allow",
    "list": "allow",
    "bash": "allow",
    "todowrite": "allow",
    "external_directory": "deny",
    "doom_loop": "deny",
}
"""Last match wins. No sandbox: a shell command can do what the sandbox lets it."""

BUILD_MODE, ASK_MODE, CHAT_MODE = "build", "ask", "chat"
_ASKED_FIRST = dict.fromkeys(("edit", "bash"), "ask")
_CHAT_PROMPT = "You are a helpful coding assistant. Answer briefly."


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentModel:
    """What OpenCode is to be told about the run's model.

    Attributes:
        provider, name: As in `provider/name`.
        api: The dialect its provider speaks.
        chat_only: No tools and a short prompt: a small model can't do more.
        asks_first: Ask for permission before commands and edits.
    """

    provider: str
    name: str
    api: Api
    chat_only: bool = False
    asks_first: bool = False

    @property
    def id(self) -> str:
        """As OpenCode names it."""
        return f"{self.provider}/{self.name}"

    @property
    def mode(self) -> str:
        """Which of OpenCode's agents works with it."""
        if self.chat_only:
            return CHAT_MODE
        return ASK_MODE if self.asks_first else BUILD_MODE


def find_binary(configured: Path | None) -> Path:
    """Return OpenCode's binary: the *configured* one, else the one npm installed.

    Raises:
        OpenCodeUnavailable: There is none.
    """
    candidates = [configured] if configured else _installed()
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise OpenCodeUnavailable


def version_of(binary: Path) -> str | None:
    """Return the version npm installed, or None for a binary from elsewhere."""
    manifest = binary.parent.parent / "package.json"
    try:
        version = json.loads(manifest.read_text(encoding="utf-8")).get("version")
    except (OSError, ValueError, AttributeError):
        return None
    return version if isinstance(version, str) else None


def fingerprint(binary: Path) -> str:
    """Return a word that changes when *binary* is replaced.

    Raises:
        OpenCodeUnavailable: It is gone.
    """
    try:
        state = binary.stat()
    except OSError as exc:
        raise OpenCodeUnavailable from exc
    return f"{binary}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}"


def _installed() -> list[Path]:
    architecture = _NPM_ARCHITECTURES.get(platform.machine(), platform.machine())
    variants = [f"opencode-linux-{architecture}"]
    if architecture == "x64" and not _has_avx2():
        variants = [f"{variants[0]}-baseline"]
    return [_PROJECT / "node_modules" / name / "bin" / "opencode" for name in variants]


def _has_avx2() -> bool:
    try:
        return " avx2 " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def furnish_home(home: Path) -> None:
    """Write what keeps OpenCode from installing its plugin package from npm at start.

    It looks for the package in its configuration directory's manifest and lock; what these
    two claim, it takes for installed.
    """
    directory = home / ".config" / "opencode"
    (directory / "node_modules").mkdir(parents=True)
    wanted = {"dependencies": {"@opencode-ai/plugin": PINNED_VERSION}}
    (directory / "package.json").write_text(json.dumps(wanted), encoding="utf-8")
    lock = {"lockfileVersion": 3, "packages": {"": wanted}}
    (directory / "package-lock.json").write_text(json.dumps(lock), encoding="utf-8")


def environment(
    inside: Inside,
    models: Sequence[AgentModel],
    *,
    token: str,
    server_password: str,
    base_path: str,
    memory_bytes: int | None = None,
    egress: bool = False,
) -> Mapping[str, str]:
    """Return OpenCode's whole environment but PATH: made from nothing.

    Tools inherit it, so it holds no secret: *token* opens the sandbox's own door, while a run
    lasts. *server_password* closes OpenCode's own HTTP server, which it opens on loopback.
    *memory_bytes* is what the sandbox may use: OpenCode's JavaScript engine takes the whole host's
    memory for its own, and collects its garbage too late. With *egress*, tools are told that the
    door lets them through to listed hosts.
    """
    config = configuration(models, base_url=inside.door_url + base_path)
    return {
        "HOME": str(inside.home),
        "XDG_CONFIG_HOME": str(inside.home / ".config"),
        "XDG_DATA_HOME": str(inside.home / ".local/share"),
        "XDG_STATE_HOME": str(inside.home / ".local/state"),
        "XDG_CACHE_HOME": str(inside.home / ".cache"),
        "TMPDIR": str(inside.tmp),
        "LANG": "C.UTF-8",
        "USER": "user",
        "SHELL": "/bin/bash",
        "TERM": "dumb",
        _TOKEN_VARIABLE: token,
        "OPENCODE_SERVER_PASSWORD": server_password,
        "OPENCODE_CONFIG_CONTENT": json.dumps(config),
        **dict.fromkeys(_SWITCHES, "1"),
        **({} if memory_bytes is None else {"BUN_JSC_forceRAMSize": str(memory_bytes)}),
        **(_proxy_variables(inside.door_url) if egress else {}),
    }


def _proxy_variables(door_url: str) -> Mapping[str, str]:
    """Return what tools read; in both cases, as they don't agree on one."""
    return {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), door_url),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }


def configuration(models: Sequence[AgentModel], *, base_url: str) -> dict[str, Any]:
    """Return OpenCode's configuration: *models*, of which the first is the default.

    It says what there is to choose from, before anybody knows who will choose; what a run may
    really ask for is decided at its door.
    """
    default = models[0]
    return {
        "$schema": "https://opencode.ai/config.json",
        "share": "disabled",
        "autoupdate": False,
        "snapshot": False,
        "formatter": False,
        "lsp": False,
        "plugin": [],
        "mcp": {},
        "instructions": [],
        "username": "user",
        "enabled_providers": list(dict.fromkeys(model.provider for model in models)),
        "model": default.id,
        "small_model": default.id,
        "default_agent": BUILD_MODE,
        "agent": {
            "title": {"disable": True},
            CHAT_MODE: {
                "mode": "primary",
                "temperature": 0,
                "prompt": _CHAT_PROMPT,
                "tools": {"*": False},
            },
            ASK_MODE: {"mode": "primary", "permission": _ASKED_FIRST},
        },
        "permission": _PERMISSIONS,
        "provider": _providers(models, base_url),
    }


def _providers(models: Sequence[AgentModel], base_url: str) -> dict[str, Any]:
    providers: dict[str, Any] = {}
    for model in models:
        provider = providers.setdefault(
            model.provider,
            {
                "npm": _SDKS[model.api],
                "name": model.provider,
                "whitelist": [],
                "options": {"baseURL": base_url, "apiKey": f"{{env:{_TOKEN_VARIABLE}}}"},
                "models": {},
            },
        )
        provider["whitelist"].append(model.name)
        provider["models"][model.name] = _details(model)
    return providers


def _details(model: AgentModel) -> dict[str, Any]:
    small = {"tool_call": False, "limit": {"context": 4096, "output": 512}}
    return {"name": model.name, **(small if model.chat_only else {})}
