"""Every run gets a record with its beginning and its end, whoever is away meanwhile.

What is to be recorded goes to the spool first and from there to PocketBase, in order. Telling it
twice does no harm: a beginning only makes a record that is not there, an end is always the same.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

import structlog

from gateway.auth.tokens import ANONYMOUS
from gateway.spool import Duty, Intents, Spool
from runner.contract.events import Usage
from runner.contract.problems import PocketBaseUnavailable, ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping
    from pathlib import Path

    from runner.contract.requests import RunState

    StorePrompts = Literal["none", "preview", "full"]

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_PREVIEW_CHARS = 200
_MAX_PROMPT_CHARS = 1_000_000  # what the field takes
_MAX_ERROR_CODE_CHARS = 100
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 5.0
_LOOK_EVERY_S = 2.0  # at runs that nobody reads
_REMEMBERED = 10_000
_UNSURE_AFTER_S = 30.0  # the runner's answer is waited for half as long
_AT_ONCE = 50  # ids in one question
_REQUEST_ID = "gateway-history"
ENDED = frozenset({"finished", "failed", "cancelled"})
"""The statuses after which nothing changes."""


class Records(Protocol):
    """Where records end up."""

    async def create(self, run_id: str, fields: Mapping[str, Any]) -> None:
        """Make a record, unless it is there."""

    async def update(self, run_id: str, fields: Mapping[str, Any]) -> None:
        """Change a record, or make it."""

    async def has_ended(self, run_id: str) -> bool:
        """Return whether an end is recorded, or there is no record."""

    async def unfinished(self) -> list[str]:
        """Return the ids of the runs that no end is recorded of."""


class States(Protocol):
    """Who knows how runs are."""

    async def states(self, run_ids: Collection[str], *, request_id: str) -> list[RunState]:
        """Return the states of the runs that are known."""


class History:
    """Writes the records of runs; `ended` is found out by asking the runner."""

    def __init__(
        self,
        records: Records,
        runner: States,
        *,
        directory: Path,
        store_prompts: StorePrompts,
        reconcile_s: float,
    ) -> None:
        self._records = records
        self._runner = runner
        self._directory = directory
        self._store_prompts = store_prompts
        self._reconcile_s = reconcile_s
        self._spools: list[Spool] = []
        self._own: Spool | None = None
        self._intents = Intents(directory)
        self._duty = Duty(directory)  # to look after what no gateway looks after
        self._asking: dict[str, dict[str, Any]] = {}
        self._open: set[str] = set()
        self._recorded: dict[str, None] = {}  # the latest, so that readers cause no work again
        self._look_at_records = 0.0
        self._something_to_tell = asyncio.Event()
        self._something_ended = asyncio.Event()

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        """Tell PocketBase, and look after runs that nobody reads, while the block runs.

        Raises:
            SpoolUnwritable: The spool can't be written.
        """
        self._own = Spool.create(self._directory)
        self._spools = [self._own]
        tasks = [asyncio.create_task(self._keep_telling()), asyncio.create_task(self._reconcile())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for spool in self._spools:
                spool.close()
            self._spools, self._own = [], None
            self._duty.leave()

    def asking(self, run_id: str, *, subject: str, prompt: str, model: str | None) -> None:
        """Keep that the runner is about to be asked for a run."""
        fields = {
            "user": _user_of(subject),
            "prompt": self._kept(prompt),
            "model": model or "",
            "status": "running",
            "started": _now(),
        }
        self._asking[run_id] = fields
        try:
            self._intents.keep(run_id, fields)
        except OSError as exc:
            log.warning("record_not_spooled", run_id=run_id, error=exc.strerror)

    def began(self, run_id: str, accepted_id: str) -> None:
        """Record that the runner accepted what was asked for as *run_id*, as *accepted_id*."""
        self._look_after(accepted_id)
        fields = self._asking.pop(run_id)
        if self._append({"op": "began", "id": accepted_id, "fields": fields}):
            self._intents.drop(run_id)

    def refused(self, run_id: str, *, for_sure: bool) -> None:
        """Take note that there is no such run; where that is not sure, it will be looked for."""
        del self._asking[run_id]
        if for_sure:
            self._intents.drop(run_id)

    def look_at(self, run_id: str) -> None:
        """Take note that a run seems to have ended: the runner will be asked at once."""
        if self._look_after(run_id):
            self._something_ended.set()

    def _look_after(self, run_id: str) -> bool:
        """Find out the end of a run; return whether that is still to be done."""
        if run_id in self._recorded:
            return False
        self._open.add(run_id)
        return True

    def _ended(self, run_id: str, state: RunState | None) -> None:
        fields = _fields_of(state) if state is not None else _LOST | {"ended": _now()}
        operation = "ended" if state is not None else "lost"
        if self._append({"op": operation, "id": run_id, "fields": fields}):
            self._open.discard(run_id)
            self._recorded[run_id] = None
            while len(self._recorded) > _REMEMBERED:
                del self._recorded[next(iter(self._recorded))]
            log.info("run_recorded", run_id=run_id, status=fields["status"])

    def _kept(self, prompt: str) -> str:
        if self._store_prompts == "none":
            return ""
        return prompt[: _PREVIEW_CHARS if self._store_prompts == "preview" else _MAX_PROMPT_CHARS]

    def _append(self, entry: dict[str, Any]) -> bool:
        try:
            if self._own is None:
                return False
            self._own.append(entry)
        except OSError as exc:
            # The run's end will be tried again, and makes the whole record.
            log.warning("record_not_spooled", run_id=entry["id"], error=exc.strerror)
            return False
        self._something_to_tell.set()
        return True

    # --- to PocketBase -------------------------------------------------------------------------

    async def _keep_telling(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            self._something_to_tell.clear()
            try:
                await self._tell_all()
            except PocketBaseUnavailable:
                log.warning("records_wait_for_pocketbase", retry_s=backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
                continue
            backoff_s = _FIRST_BACKOFF_S
            with suppress(TimeoutError):
                async with asyncio.timeout(self._reconcile_s):
                    await self._something_to_tell.wait()

    async def _tell_all(self) -> None:
        self._spools[:0] = Spool.take_over(self._directory)
        while self._spools:
            spool = self._spools[0]
            while (entry := spool.first()) is not None:
                await self._tell(entry)
                spool.done()
            if spool is self._own:
                return
            del self._spools[0]
            spool.close()
            self._look_at_records = 0.0  # what another gateway began, nobody looks after
            self._something_ended.set()

    async def _tell(self, entry: dict[str, Any]) -> None:
        match entry:
            case {"op": "began", "id": str(run_id), "fields": dict(fields)}:
                await self._records.create(run_id, fields)
            case {"op": "ended", "id": str(run_id), "fields": dict(fields)}:
                await self._records.update(run_id, fields)
            case {"op": "lost", "id": str(run_id), "fields": dict(fields)}:
                if not await self._records.has_ended(run_id):
                    await self._records.update(run_id, fields)
            case _:
                log.warning("spool_entry_unknown")

    # --- from the runner -----------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """Find out the ends of runs: of those open here often, of all in PocketBase sometimes."""
        while True:
            self._something_ended.clear()
            on_duty = self._duty.is_ours()
            with suppress(ServiceError):
                if on_duty and time.monotonic() >= self._look_at_records:
                    self._open.update(await self._records.unfinished())
                    self._look_at_records = time.monotonic() + self._reconcile_s
            with suppress(ServiceError):
                if on_duty:
                    await self._ask_for_intents()
                await self._ask_runner()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK_EVERY_S, self._reconcile_s)):
                    await self._something_ended.wait()

    async def _ask_for_intents(self) -> None:
        """Find out what became of what was asked for and never answered."""
        unsure = self._intents.older_than(_UNSURE_AFTER_S)
        if not unsure:
            return
        for run_id in await self._known(sorted(unsure)):
            self._look_after(run_id)
            if not self._append({"op": "began", "id": run_id, "fields": unsure[run_id]}):
                return
        for run_id in unsure:
            self._intents.drop(run_id)

    async def _ask_runner(self) -> None:
        waiting = sorted(self._open)
        known = await self._known(waiting)
        for run_id in waiting:
            state = known.get(run_id)
            if state is None or state.status in ENDED:
                self._ended(run_id, state)

    async def _known(self, run_ids: list[str]) -> dict[str, RunState]:
        """Return the states of the runs that the runner knows."""
        found: dict[str, RunState] = {}
        for first in range(0, len(run_ids), _AT_ONCE):
            asked = run_ids[first : first + _AT_ONCE]
            states = await self._runner.states(asked, request_id=_REQUEST_ID)
            found |= {state.run_id: state for state in states}
        return found


_LOST = {"status": "failed", "error_code": "runner-restarted"}
"""What becomes of a run that the runner has never heard of."""


def _fields_of(state: RunState) -> dict[str, Any]:
    usage = state.usage or Usage()
    return {
        "user": _user_of(state.subject),
        "model": state.model,
        "status": state.status,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": usage.cost_usd or 0,
        "queued_s": state.queued_s or 0,
        "duration_s": state.duration_s or 0,
        "error_code": (state.error_code or "")[:_MAX_ERROR_CODE_CHARS],
        "started": state.created_at,
        "ended": state.ended_at or _now(),
    }


def _user_of(subject: str) -> str:
    return "" if subject == ANONYMOUS.user_id else subject


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
