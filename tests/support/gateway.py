"""The gateway in this process, served as `python -m gateway` serves it."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession
from cryptography.fernet import Fernet
from pydantic import SecretStr

from gateway.app import create_app, serving
from gateway.keys import USER_CHANGES
from gateway.settings import Settings
from tests.support import fake_runner
from tests.support.pocketbase import SUPERUSER_EMAIL, SUPERUSER_PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import ClientResponse, web
    from aiohttp.client import _RequestContextManager

    from tests.support.pocketbase import RunningPocketBase, User

FERNET_KEY = Fernet.generate_key().decode()


@dataclass(frozen=True, kw_only=True)
class RunningGateway:
    """A gateway that is up, and a session to speak to it with."""

    url: str
    http: ClientSession
    app: web.Application

    def request(
        self, method: str, path: str, *, user: User | None = None, **options: Any
    ) -> _RequestContextManager:
        """Send a request, signed in as *user*."""
        headers = dict(options.pop("headers", {}))
        if user is not None:
            headers.setdefault("Authorization", user.token)
        return self.http.request(
            method, self.url + path, headers=headers, allow_redirects=False, **options
        )

    def stream(
        self, user: User | None, *, prompt: str = "Hallo", accept: str = "*/*", **params: str
    ) -> _RequestContextManager:
        """Send a prompt."""
        return self.request(
            "GET",
            "/opencode/stream",
            user=user,
            params={"prompt": prompt, **params},
            headers={"Accept": accept},
        )


def gateway_settings(
    pocketbase: RunningPocketBase, *, runner_url: str = "http://127.0.0.1:1", **changed: Any
) -> Settings:
    """Return settings for tests: quick heartbeats, quick to give up."""
    fields: dict[str, Any] = {
        "pocketbase_url": pocketbase.url,
        "runner_url": runner_url,
        "runner_token": SecretStr(fake_runner.TOKEN),
        "pb_superuser_email": SUPERUSER_EMAIL,
        "pb_superuser_password": SecretStr(SUPERUSER_PASSWORD),
        "key_encryption_keys": (SecretStr(FERNET_KEY),),
        "key_sealing_key": SecretStr(pocketbase.sealing_key),
        "gateway_write_timeout_s": 2.0,
        "gateway_metrics_port": 0,
        "gateway_runner_patience_s": 0.5,
        "data_dir": pocketbase.data_dir.parent / "gateway" / secrets.token_hex(4),
    }
    return Settings(**{**fields, **changed})


@asynccontextmanager
async def run_gateway(settings: Settings) -> AsyncIterator[RunningGateway]:
    """Serve the gateway on a free port while the block runs."""
    app = create_app(settings)
    async with (
        serving(app, host="127.0.0.1", port=0) as port,
        ClientSession(auto_decompress=False) as http,
    ):
        yield RunningGateway(url=f"http://127.0.0.1:{port}", http=http, app=app)


async def changes_are_heard(gateway: RunningGateway) -> None:
    """Wait until the gateway hears of changed users at once."""
    await gateway.app[USER_CHANGES].subscribed.wait()


async def problem_of(response: ClientResponse) -> dict[str, Any]:
    """Return an answer's problem, having looked at its form."""
    assert response.content_type == "application/problem+json", await response.text()
    problem: dict[str, Any] = await response.json(content_type=None)
    assert problem["status"] == response.status
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["error"] == problem["detail"]
    return problem
