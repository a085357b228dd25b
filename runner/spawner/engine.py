"""The Docker engine, through its SDK. Everything here blocks: call it in a thread."""

from __future__ import annotations

import hashlib
import os
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from runner.spawner import profile
from runner.spawner.directories import look_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.spawner.messages import RunLimits
    from runner.spawner.settings import Settings

_TIMEOUT_S = 60
_REMOVAL_PATIENCE_S = 10.0
_REMOVAL_POLL_S = 0.05
_ATTACHED = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
_RUNNING = frozenset({"running", "restarting", "paused"})


class EngineFailed(Exception):
    """The engine did not do it; the text says why and, where known, what to do."""


class Engine:
    """Containers of the runs below one directory of run directories."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runs = settings.spawner_runs_dir.resolve()
        self._scope = profile.scope_of(self._runs)
        try:
            self._api = docker.from_env(timeout=_TIMEOUT_S).api
        except DockerException as exc:
            raise EngineFailed(f"no Docker engine answers ({exc}): set DOCKER_HOST") from exc

    def check(self) -> None:
        """See that the engine has what sandboxes need.

        Raises:
            EngineFailed: It hasn't.
        """
        image, runtime = self._settings.spawner_image, self._settings.spawner_runtime
        try:
            self._api.inspect_image(image)
            known = self._api.info()["Runtimes"]
        except ImageNotFound as exc:
            raise EngineFailed(
                f"there is no image {image}: docker build --target sandbox -t {image} ."
            ) from exc
        except (APIError, RequestException) as exc:
            raise EngineFailed(f"the Docker engine refused: {exc}") from exc
        if runtime and runtime not in known:
            raise EngineFailed(
                f"the Docker engine has no runtime {runtime}, only {', '.join(sorted(known))}:"
                " add it to its daemon.json, or unset SPAWNER_RUNTIME"
            )

    def start(self, run: str, limits: RunLimits) -> int:
        """Start the container of *run*; return a descriptor of its attached stream.

        Raises:
            BadRunDirectory: There is no directory that could be shown to it.
            EngineFailed: The engine refused.
        """
        config = profile.container(
            look_at(self._runs, run),
            limits,
            image=self._settings.spawner_image,
            runtime=self._settings.spawner_runtime,
            labels={profile.LABEL_RUNS: self._scope, profile.LABEL_RUN: run},
        )
        name = self._name(run)
        try:
            self._api.create_container_from_config(config, name=name)
            # Attached before it is started: nothing of what it says can be missed.
            stream = self._api.attach_socket(name, params=_ATTACHED)
            fd = os.dup(stream.fileno())
            stream.close()
            try:
                self._api.start(name)
            except BaseException:
                os.close(fd)
                raise
        except (APIError, RequestException) as exc:
            self.stop(run)
            raise EngineFailed(f"the Docker engine refused: {_words(exc)}") from exc
        return fd

    def stop(self, run: str) -> None:
        """End the container of *run* and remove it; there may be none.

        Raises:
            EngineFailed: The engine refused.
        """
        deadline = time.monotonic() + _REMOVAL_PATIENCE_S
        while True:
            try:
                self._api.remove_container(self._name(run), force=True, v=True)
            except NotFound:
                return
            except (APIError, RequestException) as exc:
                # Somebody else may be removing it: then it is not gone yet.
                if not _is_under_way(exc) or time.monotonic() > deadline:
                    raise EngineFailed(f"the Docker engine refused: {_words(exc)}") from exc
                time.sleep(_REMOVAL_POLL_S)
            else:
                return

    def runs(self, *, dead: bool = False) -> list[str]:
        """Return the runs that have a container; only *dead* ones if asked so.

        Raises:
            EngineFailed: The engine refused.
        """
        label = f"{profile.LABEL_RUNS}={self._scope}"
        try:
            found = self._api.containers(all=True, filters={"label": label})
        except (APIError, RequestException) as exc:
            raise EngineFailed(f"the Docker engine refused: {_words(exc)}") from exc
        return [
            one["Labels"][profile.LABEL_RUN]
            for one in found
            if not (dead and one["State"] in _RUNNING)
        ]

    def events(self, tell: Callable[[str, str], None], holds: Callable[[Any], None]) -> None:
        """Call *tell* with event (`oom`, `die`) and run until the stream ends.

        *holds* gets what ends it, by its `close`.

        Raises:
            EngineFailed: The engine refused.
        """
        label = f"{profile.LABEL_RUNS}={self._scope}"
        filters = {"type": "container", "event": ["oom", "die"], "label": label}
        try:
            stream = self._api.events(filters=filters, decode=True)
            holds(stream)
            for event in stream:
                tell(event["Action"], event["Actor"]["Attributes"][profile.LABEL_RUN])
        except (APIError, RequestException) as exc:
            raise EngineFailed(_words(exc)) from exc

    def _name(self, run: str) -> str:
        digest = hashlib.sha256(f"{self._scope}/{run}".encode()).hexdigest()
        return f"opencode-run-{digest[:16]}"


def _is_under_way(exc: Exception) -> bool:
    return isinstance(exc, APIError) and exc.status_code == HTTPStatus.CONFLICT


def _words(exc: Exception) -> str:
    return str(exc.explanation) if isinstance(exc, APIError) else str(exc)
