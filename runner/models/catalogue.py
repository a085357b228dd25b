"""Which models there are, for whom, and who answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.agents.opencode import AgentModel
from runner.contract.problems import KeyRequired, ModelNotAllowed
from runner.contract.requests import ModelInfo, ModelList
from runner.credential_proxy.forward import HttpUpstream
from runner.credential_proxy.scripted import DemoTools
from runner.models.local import LocalUpstream
from runner.models.prices import FREE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientSession
    from pydantic import SecretStr

    from runner.credential_proxy.forward import Patience
    from runner.credential_proxy.upstreams import Api, Upstream
    from runner.credential_proxy.usage import Price
    from runner.models.local import LocalModel

OPENAI, LOCAL, DEMO = "openai", "local", "demo"
PROVIDERS = (OPENAI, LOCAL, DEMO)
LOCAL_MODEL = "local/smollm2-135m"
DEMO_MODEL = "demo/tools"
_OPENAI_MODELS = (
    *("openai/gpt-5.4-mini", "openai/gpt-5.4-nano", "openai/gpt-5.6"),
    *("openai/gpt-5-mini", "openai/gpt-4.1-mini"),
)
"""Offered where MODELS says nothing; the first is the default."""

_NOTES = {
    LOCAL_MODEL: "A very small model on the server's CPU: chat only, weak, free of charge.",
    DEMO_MODEL: "A script, not a model: shows a shell command, a file and streaming.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A model a run may use, who answers it, and what it costs (None: nobody knows)."""

    id: str
    model: AgentModel
    upstream: Upstream
    price: Price | None


class Catalogue:
    """The models on offer."""

    def __init__(
        self,
        http: ClientSession,
        *,
        allowed: tuple[str, ...],
        default: str | None,
        operator_key: SecretStr | None,
        openai_base_url: str,
        openai_api: Api,
        patience: Patience,
        prices: Mapping[str, Price],
        demo: bool,
        local: LocalModel | None,
    ) -> None:
        self._http = http
        self._operator_key = operator_key
        self._base_url = openai_base_url
        self._api = openai_api
        self._patience = patience
        self._prices = prices
        self._local = local
        free = ((LOCAL_MODEL,) if local else ()) + ((DEMO_MODEL,) if demo else ())
        offered = allowed or (*free, *_OPENAI_MODELS)
        self._ids = tuple(name for name in offered if name.startswith(f"{OPENAI}/") or name in free)
        self._default = default

    def list(self) -> ModelList:
        """Return what there is to choose from."""
        return ModelList(
            models=[
                ModelInfo(
                    id=name,
                    name=name.partition("/")[2],
                    needs_key=_needs_key(name),
                    note=_NOTES.get(name, ""),
                )
                for name in self._ids
            ],
            operator_key=self._operator_key is not None,
            default_with_key=self._default_for(has_key=True),
            default_without_key=self._default_for(has_key=self._operator_key is not None),
        )

    def agent_models(self) -> tuple[AgentModel, ...]:
        """Return what agents are to know of, what is most likely to be asked for first."""
        first = self._default_for(has_key=self._operator_key is not None)
        names = sorted(self._ids, key=lambda name: name != first)
        return tuple(self._agent_model(name) for name in names)

    def choose(self, name: str | None, own_key: SecretStr | None) -> Choice:
        """Return the model *name* (None: the default) for a caller with *own_key* or none.

        Raises:
            ModelNotAllowed: It is not on the list.
            KeyRequired: It needs a key, and there is neither the caller's nor the operator's.
        """
        key = own_key or self._operator_key
        name = name or self._default_for(has_key=key is not None)
        if name is None:
            raise KeyRequired
        if name not in self._ids:
            raise ModelNotAllowed(model=name[:100], allowed=", ".join(self._ids))
        if _needs_key(name) and key is None:
            raise KeyRequired
        model = self._agent_model(name)
        return Choice(
            id=name,
            model=model,
            upstream=self._upstream(model.provider, key),
            price=self._prices.get(name) if _needs_key(name) else FREE,
        )

    def _agent_model(self, name: str) -> AgentModel:
        provider, _, model = name.partition("/")
        return AgentModel(
            provider=provider,
            name=model,
            api=self._api if provider == OPENAI else "chat",
            chat_only=provider == LOCAL,
        )

    def _upstream(self, provider: str, key: SecretStr | None) -> Upstream:
        if provider == LOCAL and self._local is not None:
            return LocalUpstream(self._http, self._local)
        if provider == DEMO:
            return DemoTools()
        return HttpUpstream(
            self._http,
            base_url=self._base_url,
            api=self._api,
            key=key,
            patience=self._patience,
        )

    def _default_for(self, *, has_key: bool) -> str | None:
        if self._default is not None:
            return self._default
        usable = [name for name in self._ids if has_key or not _needs_key(name)]
        with_key = [name for name in usable if _needs_key(name)]
        return next(iter(with_key or usable), None)


def _needs_key(name: str) -> bool:
    return name.startswith(f"{OPENAI}/")
