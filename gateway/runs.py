"""The use cases: start a run, read its events, look at it, end it, answer it."""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from gateway.following import EventSource, follow
from gateway.history import ENDED
from gateway.models import RunInfo, RunPage, UsageReport, info_of_record, info_of_state
from runner.contract.problems import (
    EventUnknown,
    NotFound,
    RunnerRestarting,
    RunnerUnavailable,
    ServiceError,
    TokenRequired,
)
from runner.contract.requests import StartRun
from runner.plumbing.cleanup import finish

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from pydantic import SecretStr

    from gateway.auth.tokens import Identity
    from gateway.callers import Caller, Prompt
    from gateway.streaming.lines import EventLine
    from runner.contract.requests import RunAccepted, RunState

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_ID_CHARS = string.ascii_lowercase + string.digits
_ID_LENGTH = 15
_ASK_AGAIN_S = 0.5
_RESTART_S = 8.0
"""How long a runner that is not there may be one that restarts."""


class Keys(Protocol):
    """Where callers' API keys come from."""

    async def reveal(self, identity: Identity) -> SecretStr | None:
        """Return the caller's key, None if they have none."""


class Runner(EventSource, Protocol):
    """What runs prompts; see `RunnerClient`."""

    async def start(self, run: StartRun, *, request_id: str) -> RunAccepted:
        """Have *run* carried out."""

    async def state(self, run_id: str, *, subject: str, request_id: str) -> RunState:
        """Return what is known of a run."""

    async def states(self, run_ids: Collection[str], *, request_id: str) -> list[RunState]:
        """Return what is known of some runs."""

    async def cancel(self, run_id: str, *, subject: str, request_id: str) -> RunState:
        """End a run."""

    async def answer_permission(
        self, run_id: str, permission_id: str, option: str, *, subject: str, request_id: str
    ) -> None:
        """Answer what the agent asks."""


class Records(Protocol):
    """Where the records of past runs can be read."""

    async def page_for(self, token: str, *, page: int, per_page: int) -> dict[str, Any]:
        """Return one page of a caller's records."""

    async def one_for(self, token: str, run_id: str) -> dict[str, Any]:
        """Return one of a caller's records."""

    async def usage_by_day_for(self, token: str, *, days: int) -> list[dict[str, Any]]:
        """Return what a caller has used on each of the latest *days*."""

    async def usage_for(self, token: str) -> dict[str, Any]:
        """Return what a caller has used in all."""


class Recorder(Protocol):
    """Who writes the records."""

    def asking(self, run_id: str, *, subject: str, prompt: str, model: str | None) -> None:
        """Keep that the runner is about to be asked for a run."""

    def began(self, run_id: str, accepted_id: str) -> None:
        """Record that the runner accepted it, as *accepted_id*."""

    def refused(self, run_id: str, *, for_sure: bool) -> None:
        """Take note that there is no such run, as far as one can tell."""

    def look_at(self, run_id: str) -> None:
        """Take note that a run seems to have ended."""


@dataclass(slots=True)
class _Tally:
    """What the log says about one reading of a run."""

    events: int = 0
    size_bytes: int = 0
    outcome: str = "disconnected"  # unless a terminal event says otherwise

    def add(self, line: EventLine) -> None:
        self.events += 1
        self.size_bytes += len(line.raw)
        if line.is_terminal:
            self.outcome = str(line.fields().get("code") or line.type.removeprefix("run."))


class RunService:
    """Runs for callers, each for its owner alone: to others there is no such run.

    All methods raise `ServiceError`: a part is away, or refuses.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        runner: Runner,
        records: Records,
        recorder: Recorder,
        debounce_s: float,
        patience_s: float,
    ) -> None:
        self._keys = keys
        self._runner = runner
        self._records = records
        self._recorder = recorder
        self._debounce_s = debounce_s
        self._patience_s = patience_s

    async def start(self, caller: Caller, prompt: Prompt, *, attached: bool) -> str:
        """Have *prompt* carried out; return the id of its run, which may have been there before.

        An *attached* run ends soon after its last reader left.
        """
        return await self._start(caller, prompt, attached=attached, come_back=False)

    async def come_back(self, caller: Caller, prompt: Prompt) -> str | None:
        """Return the id of the caller's latest run of *prompt*, None if there is none."""
        if not caller.identity.signed_in:
            return None  # all callers without an account would share their runs
        try:
            return await self._start(caller, prompt, attached=True, come_back=True)
        except ServiceError as exc:
            if exc.status != HTTPStatus.NOT_FOUND:
                raise
        return None

    async def _start(
        self, caller: Caller, prompt: Prompt, *, attached: bool, come_back: bool
    ) -> str:
        known = caller.identity.signed_in
        if prompt.idempotency_key is not None and not known:
            raise TokenRequired  # all callers without an account would share their keys
        run = StartRun(
            run_id="".join(secrets.choice(_ID_CHARS) for _ in range(_ID_LENGTH)),
            subject=caller.subject,
            prompt=prompt.text,
            model=prompt.model,
            key=await self._keys.reveal(caller.identity),
            language=caller.language,
            attached=attached,
            idempotency_key=prompt.idempotency_key,
            join_within_s=(self._debounce_s or None) if known else None,
            permission=prompt.permission,
            come_back=come_back,
        )
        log.info("run_requested", run_id=run.run_id, model=prompt.model, attached=attached)
        return await self._until_taken_on(run, request_id=caller.request_id)

    async def _until_taken_on(self, run: StartRun, *, request_id: str) -> str:
        """Have the runner take *run* on, waiting for one that restarts; return its run's id."""
        until = time.monotonic() + self._patience_s
        there_at = time.monotonic()
        accepted: list[str] = []
        while not accepted:
            try:
                # A caller who leaves now must not leave a run that nobody has written down.
                await finish(self._hand_over(run, accepted, request_id=request_id))
            except ServiceError as exc:
                # A runner that restarts is back in a moment. One that took the run on all the
                # same, its answer having got lost, knows it by its id.
                now = time.monotonic()
                if exc.code == RunnerRestarting.code:
                    there_at = now
                elif not isinstance(exc, RunnerUnavailable) or now - there_at >= _RESTART_S:
                    raise
                if now >= until:
                    raise
                await asyncio.sleep(min(_ASK_AGAIN_S, self._patience_s))
        return accepted[0]

    async def _hand_over(self, run: StartRun, accepted: list[str], *, request_id: str) -> None:
        self._recorder.asking(run.run_id, subject=run.subject, prompt=run.prompt, model=run.model)
        try:
            answer = await self._runner.start(run, request_id=request_id)
        except ServiceError as exc:
            self._recorder.refused(run.run_id, for_sure=not isinstance(exc, RunnerUnavailable))
            raise
        if answer.joined:
            log.info("run_joined", run_id=answer.run_id)
        # One that was joined may be of a gateway that died before it could write this down.
        self._recorder.began(run.run_id, answer.run_id)
        accepted.append(answer.run_id)

    async def read(
        self, caller: Caller, run_id: str, *, after: int | None
    ) -> AsyncGenerator[list[EventLine], None]:
        """Yield the run's events after number *after*; always ends with a terminal one."""
        started, tally = time.monotonic(), _Tally()
        followed = follow(
            self._runner,
            run_id,
            subject=caller.subject,
            after=after,
            request_id=caller.request_id,
            language=caller.language,
            patience_s=self._patience_s,
        )
        try:
            async with aclosing(followed) as batches:
                async for batch in batches:
                    for line in batch:
                        tally.add(line)
                    if batch[-1].is_terminal:
                        self._recorder.look_at(run_id)
                    yield batch
        finally:
            log.info(
                "run_read",
                run_id=run_id,
                outcome=tally.outcome,
                duration_s=round(time.monotonic() - started, 3),
                events=tally.events,
                bytes=tally.size_bytes,
            )

    async def has_more(self, caller: Caller, run_id: str, *, after: int | None) -> bool:
        """Return whether events follow number *after*.

        Raises:
            NotFound: Nothing can be read.
            EventUnknown: The run has not come as far as *after*.
        """
        state = await self._runner.state(
            run_id, subject=caller.subject, request_id=caller.request_id
        )
        last = -1 if state.last_seq is None else state.last_seq
        if after is not None and after > last:
            raise EventUnknown(after=after, known=last + 1)
        return state.status not in ENDED or after is None or after < last

    async def look(self, caller: Caller, run_id: str) -> RunInfo:
        """Return how a run is: from the runner, or what was recorded of it."""
        unknown: ServiceError
        try:
            return info_of_state(
                await self._runner.state(
                    run_id, subject=caller.subject, request_id=caller.request_id
                )
            )
        except ServiceError as exc:
            if exc.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE}:
                raise
            unknown = exc
        if not caller.identity.signed_in:
            raise NotFound if unknown.status == HTTPStatus.NOT_FOUND else unknown
        return info_of_record(await self._records.one_for(caller.token, run_id))

    async def page(self, caller: Caller, *, page: int, per_page: int) -> RunPage:
        """Return one page of the caller's runs, newest first."""
        if not caller.identity.signed_in:
            raise TokenRequired
        found = await self._records.page_for(caller.token, page=page, per_page=per_page)
        runs = [info_of_record(record) for record in found["items"]]
        live = await self._live(caller, [run.id for run in runs if run.status not in ENDED])
        return RunPage(
            page=page,
            per_page=per_page,
            total=found["totalItems"],
            items=[live.get(run.id, run).model_copy(update={"prompt": run.prompt}) for run in runs],
        )

    async def usage(self, caller: Caller, *, days: int) -> UsageReport:
        """Return what the caller's runs have used, on the latest *days* and in all."""
        if not caller.identity.signed_in:
            raise TokenRequired
        by_day, total = await asyncio.gather(
            self._records.usage_by_day_for(caller.token, days=days),
            self._records.usage_for(caller.token),
        )
        return UsageReport.model_validate({"total": total, "days": by_day})

    async def cancel(self, caller: Caller, run_id: str) -> RunInfo:
        """End a run; one that has ended stays as it is."""
        try:
            state = await self._runner.cancel(
                run_id, subject=caller.subject, request_id=caller.request_id
            )
        except ServiceError as exc:
            if exc.status != HTTPStatus.NOT_FOUND or not caller.identity.signed_in:
                raise
            # The runner forgets runs that ended long ago.
            return info_of_record(await self._records.one_for(caller.token, run_id))
        self._recorder.look_at(run_id)
        return info_of_state(state)

    async def answer(self, caller: Caller, run_id: str, permission_id: str, option: str) -> None:
        """Answer what the agent of a run asks."""
        await self._runner.answer_permission(
            run_id,
            permission_id,
            option,
            subject=caller.subject,
            request_id=caller.request_id,
        )

    async def _live(self, caller: Caller, run_ids: list[str]) -> dict[str, RunInfo]:
        """Return how runs are that no end is recorded of, as far as the runner tells."""
        if not run_ids:
            return {}
        try:
            states = await self._runner.states(run_ids, request_id=caller.request_id)
        except RunnerUnavailable:
            return {}
        return {s.run_id: info_of_state(s) for s in states if s.subject == caller.subject}
