"""What is answered to an agent that asks whether it may: by policy, by a person, by a deadline."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from runner.acp.surrogates import mended
from runner.contract.events import PermissionOption, PermissionRequested, PermissionResolved
from runner.contract.problems import AlreadyResolved, InvalidField, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runner.contract.events import RunEvent
    from runner.contract.requests import Permission

_ALLOW_KINDS = ("allow_once", "allow_always")
_REJECT_KINDS = ("reject_once", "reject_always")
_MAX_TITLE_CHARS = 1000
_MAX_OPTIONS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PermissionPolicy:
    """What one run's agent is told.

    Attributes:
        asks_first: Whether OpenCode asks before commands and edits; else its configuration
            allows them. What it is configured to deny stays denied.
        answer: What it is answered when it asks; `ask`: a person decides.
    """

    asks_first: bool
    answer: Permission


def policy_for(operator: Permission, wanted: Permission | None) -> PermissionPolicy:
    """Return the policy of a run that *wanted* this, under the *operator*'s choice.

    `ask` and `deny` never give more than the operator does: where the operator wants to be
    asked, OpenCode asks, whoever or whatever answers.

    Raises:
        InvalidField: It wanted more than the operator allows.
    """
    if wanted == "allow" and operator != "allow":
        raise InvalidField(fields=f"permission (the operator allows no more than {operator})")
    return PermissionPolicy(
        asks_first="ask" in {operator, wanted}, answer=operator if wanted is None else wanted
    )


def decide(params: dict[str, Any], *, allow: bool) -> dict[str, Any]:
    """Return the result of a `session/request_permission` with *params*."""
    options = [o for o in params.get("options") or () if isinstance(o, dict)]
    for kind in _ALLOW_KINDS if allow else _REJECT_KINDS:
        for option in options:
            if option.get("kind") == kind:
                return _selected(option.get("optionId"))
    return {"outcome": {"outcome": "cancelled"}}


class Approvals:
    """One run's permission requests; each is answered once, and none waits for ever."""

    def __init__(
        self,
        *,
        answer: Permission,
        timeout_s: float,
        tell: Callable[[RunEvent], Awaitable[None]],
    ) -> None:
        self._answer = answer
        self._timeout_s = timeout_s
        self._tell = tell
        self._open: dict[str, tuple[set[str], asyncio.Future[str]]] = {}
        self._known: set[str] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether a person is waited for."""
        return bool(self._open)

    async def ask(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a `session/request_permission` with *params*; tells the run."""
        params = mended(params)
        number = f"p{len(self._known) + 1}"
        self._known.add(number)
        options = _options(params)
        wait_s = self._timeout_s if self._answer == "ask" else 0.0
        decision = asyncio.get_running_loop().create_future()
        if wait_s:
            self._open[number] = ({option.id for option in options}, decision)
        try:
            await self._tell(_requested(number, params, options, wait_s))
            result, by = await self._decided(params, decision, wait_s)
        finally:
            self._open.pop(number, None)
        option = result["outcome"].get("optionId")
        await self._tell(PermissionResolved(id=number, option=option, by=by))
        return result

    def answer(self, number: str, option: str) -> None:
        """Answer request *number* with one of its options.

        Raises:
            NotFound: There was no such request.
            AlreadyResolved: It was answered before, or its time is over.
            InvalidField: It has no such option.
        """
        if number not in self._known:
            raise NotFound
        options, decision = self._open.get(number, (set(), None))
        if decision is None or decision.done():
            raise AlreadyResolved
        if option not in options:
            raise InvalidField(fields="option (not one of the request's)")
        decision.set_result(option)

    async def _decided(
        self, params: dict[str, Any], decision: asyncio.Future[str], wait_s: float
    ) -> tuple[dict[str, Any], str]:
        if self._answer != "ask":
            return decide(params, allow=self._answer == "allow"), "policy"
        await asyncio.wait({decision}, timeout=wait_s)
        if decision.done():
            return _selected(decision.result()), "user"
        return decide(params, allow=False), "deadline"


def _requested(
    number: str, params: dict[str, Any], options: list[PermissionOption], wait_s: float
) -> PermissionRequested:
    call = params.get("toolCall")
    title = str(call.get("title") or "") if isinstance(call, dict) else ""
    deadline = datetime.now(UTC) + timedelta(seconds=wait_s)
    return PermissionRequested(
        id=number,
        title=title[:_MAX_TITLE_CHARS],
        options=options,
        deadline=deadline.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


def _options(params: dict[str, Any]) -> list[PermissionOption]:
    return [
        PermissionOption(
            id=str(option["optionId"]),
            name=str(option.get("name") or option["optionId"])[:_MAX_TITLE_CHARS],
            kind=str(option.get("kind") or ""),
        )
        for option in (params.get("options") or ())[:_MAX_OPTIONS]
        if isinstance(option, dict) and option.get("optionId")
    ]


def _selected(option: Any) -> dict[str, Any]:
    return {"outcome": {"outcome": "selected", "optionId": option}}
