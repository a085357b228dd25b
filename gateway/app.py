"""The composition root: the only module that knows every concrete class."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway import keys
from gateway.auth.cache import CachingVerifier
from gateway.auth.middleware import authenticate
from gateway.handlers.counting import count_request
from gateway.history import History
from gateway.language import language_of
from gateway.metrics import Metrics
from gateway.offer import Offer
from gateway.pocketbase import PocketBase
from gateway.protocol import protocol_factory
from gateway.realtime import UserChanges
from gateway.routes import EVERYTHING_ELSE, ROUTES
from gateway.run_records import RunRecords
from gateway.runner_client import RunnerClient
from gateway.runs import RunService
from gateway.service_account import ServiceAccount
from gateway.upstream import Upstream
from gateway.user_keys import UserKeys
from gateway.vault import Vault
from runner.plumbing.context import request_context, send_request_id
from runner.plumbing.errors import problem_errors
from runner.plumbing.metrics import metrics_served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.settings import Settings

    Wiring = Callable[[web.Application], AbstractAsyncContextManager[None]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_ANSWER_S = 10.0
_CONNECT_S = 3.0
_MAX_HEADER_LINE_BYTES = 1 << 20  # a prompt of 200 kB, percent-encoded in the query
_MAX_ANSWER_HEADER_BYTES = 64 << 10
_SHUTDOWN_S = 3.0
_BACKLOG = 1024
_JSON_ESCAPED = 6  # `\\u00e4`: what one byte of a prompt takes in JSON at most
_AROUND_THE_PROMPT_BYTES = 64 << 10


@asynccontextmanager
async def production(app: web.Application) -> AsyncIterator[None]:
    """Build the services in the order they depend on each other; close in reverse."""
    settings, metrics = app[keys.SETTINGS], app[keys.METRICS]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            ClientSession(
                timeout=ClientTimeout(total=_ANSWER_S),
                connector=TCPConnector(limit=0),  # streams hold their connections
                cookie_jar=DummyCookieJar(),
                headers={"User-Agent": "opencode-multiuser-gateway"},
            )
        )
        account = ServiceAccount(
            http,
            base_url=settings.pocketbase_url,
            email=settings.pb_superuser_email,
            password=settings.pb_superuser_password,
        )
        upstream = app[keys.UPSTREAM] = Upstream(settings.pocketbase_url)
        stack.callback(upstream.close)
        pocketbase = PocketBase(http, upstream, base_url=settings.pocketbase_url, account=account)
        verifier = CachingVerifier(
            pocketbase, ttl_s=settings.gateway_token_cache_s, on_check=metrics.token_checked
        )
        changes = UserChanges(
            http, base_url=settings.pocketbase_url, account=account, cache=verifier
        )
        vault = Vault(settings.key_encryption_keys, sealing_key=settings.key_sealing_key)
        user_keys = UserKeys(pocketbase, vault=vault)
        runner = RunnerClient(http, base_url=settings.runner_url, token=settings.runner_token)
        app[keys.PASS_THROUGH] = await stack.enter_async_context(_pass_through_session())
        app[keys.POCKETBASE], app[keys.VERIFIER] = pocketbase, verifier
        app[keys.USER_CHANGES], app[keys.USER_KEYS] = changes, user_keys
        app[keys.RUNNER], app[keys.OFFER] = runner, Offer(runner)
        records = RunRecords(http, base_url=settings.pocketbase_url, account=account)
        history = app[keys.HISTORY] = History(
            records,
            runner,
            directory=settings.spool_dir,
            store_prompts=settings.gateway_store_prompts,
            reconcile_s=settings.gateway_reconcile_s,
        )
        app[keys.RUNS] = RunService(
            keys=user_keys,
            runner=runner,
            records=records,
            recorder=history,
            debounce_s=settings.gateway_debounce_s,
            patience_s=settings.gateway_runner_patience_s,
        )
        await stack.enter_async_context(
            metrics_served(
                metrics.registry,
                host=settings.gateway_metrics_host,
                port=settings.gateway_metrics_port,
                setting="GATEWAY_METRICS_PORT",
            )
        )
        await stack.enter_async_context(changes.listening())
        await stack.enter_async_context(history.recording())
        yield


def create_app(settings: Settings, *, wiring: Wiring = production) -> web.Application:
    """Return the application; nothing is opened until it starts.

    Raises:
        BadVaultKeys: The encryption keys can't be used.
    """
    Vault(settings.key_encryption_keys, sealing_key=settings.key_sealing_key)
    app = web.Application(
        middlewares=[
            request_context(count_request),
            problem_errors(language_of),
            authenticate,
        ],
        client_max_size=_JSON_ESCAPED * settings.gateway_max_prompt_bytes
        + _AROUND_THE_PROMPT_BYTES,
    )
    app[keys.SETTINGS] = settings
    app[keys.METRICS] = Metrics()
    app.on_response_prepare.append(_sign)
    app.cleanup_ctx.append(wiring)
    app.add_routes([*ROUTES, EVERYTHING_ELSE])
    return app


@asynccontextmanager
async def serving(
    app: web.Application, *, host: str, port: int, shared: bool = False
) -> AsyncIterator[int]:
    """Serve *app* while the block runs; yields the port. A *shared* one others may listen on too.

    Leaving the block takes no new connections, and ends those that are left after 3 seconds.

    Raises:
        OSError: The address can't be listened on.
    """
    options: dict[str, Any] = {
        "access_log": None,
        "auto_decompress": False,  # bodies pass as they are
        "max_line_size": _MAX_HEADER_LINE_BYTES,
        "max_field_size": _MAX_HEADER_LINE_BYTES,
        "logger": _http_log(),
    }
    runner = web.AppRunner(
        app,
        handler_cancellation=True,  # a client that leaves ends its run
        shutdown_timeout=_SHUTDOWN_S,
        **options,
    )
    await runner.setup()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            protocol_factory(runner, app[keys.SETTINGS].gateway_language, options),
            host,
            port,
            backlog=_BACKLOG,
            reuse_address=True,
            reuse_port=shared,
        )
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _pass_through_session() -> ClientSession:
    """Return a session that adds nothing and waits: a realtime subscription has no end."""
    return ClientSession(
        timeout=ClientTimeout(total=None, sock_connect=_CONNECT_S),
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=_MAX_ANSWER_HEADER_BYTES,
        max_field_size=_MAX_ANSWER_HEADER_BYTES,
    )


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """Say which request it answers, and not with which software."""
    await send_request_id(request, response)
    response.headers.pop("Server", None)


def _http_log() -> logging.Logger:
    """Return aiohttp's logger, which tells of requests that can't be read."""
    logger = logging.getLogger("gateway.http")
    logger.addFilter(_without_quotes)
    return logger


def _without_quotes(record: logging.LogRecord) -> bool:
    """Keep an error's name alone: its text and its traceback quote what clients sent."""
    failure = record.exc_info[1] if record.exc_info else None
    if isinstance(failure, HttpProcessingError):  # a fault of the client, no error of ours
        log.info("request_unreadable", error=type(failure).__name__)
        return False
    if failure is not None:
        record.msg, record.args = f"{record.getMessage()}: {type(failure).__name__}", ()
        record.exc_info = None
    return True
