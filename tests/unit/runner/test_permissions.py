"""An agent that asks gets one answer: the policy's, a person's, or the deadline's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from runner.acp.permissions import Approvals, PermissionPolicy, policy_for
from runner.contract import events
from runner.contract.problems import AlreadyResolved, InvalidField, NotFound

if TYPE_CHECKING:
    from runner.contract.events import RunEvent
    from runner.contract.requests import Permission

ASKED: dict[str, Any] = {
    "toolCall": {"toolCallId": "c1", "title": "rm -r ./build"},
    "options": [
        {"optionId": "once", "name": "Allow once", "kind": "allow_once"},
        {"optionId": "always", "name": "Always allow", "kind": "allow_always"},
        {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
    ],
}


class Desk:
    """Approvals, and what they told the run."""

    def __init__(self, answer: Permission, timeout_s: float = 30) -> None:
        self.told: list[RunEvent] = []
        self.asked = asyncio.Event()
        self.approvals = Approvals(answer=answer, timeout_s=timeout_s, tell=self._tell)

    async def _tell(self, event: RunEvent) -> None:
        self.told.append(event)
        if isinstance(event, events.PermissionRequested):
            self.asked.set()

    @property
    def last(self) -> events.PermissionResolved:
        assert isinstance(self.told[-1], events.PermissionResolved)
        return self.told[-1]


def chosen(option: str) -> dict[str, Any]:
    return {"outcome": {"outcome": "selected", "optionId": option}}


async def test_a_person_decides() -> None:
    """The request stands in the log, then what was chosen and by whom; twice is a conflict."""
    desk = Desk("ask")
    asking = asyncio.create_task(desk.approvals.ask(ASKED))
    await desk.asked.wait()
    request = desk.told[0]
    assert isinstance(request, events.PermissionRequested)
    assert [option.id for option in request.options] == ["once", "always", "reject"]
    assert (request.title, desk.approvals.is_waiting) == ("rm -r ./build", True)
    with pytest.raises(InvalidField):
        desk.approvals.answer(request.id, "whatever")
    with pytest.raises(NotFound):
        desk.approvals.answer("p2", "once")

    desk.approvals.answer(request.id, "once")

    assert await asking == chosen("once")
    assert desk.last == events.PermissionResolved(id=request.id, option="once", by="user")
    assert not desk.approvals.is_waiting
    with pytest.raises(AlreadyResolved):
        desk.approvals.answer(request.id, "once")


async def test_nobody_answering_is_no() -> None:
    """By the deadline; an answer after it is too late."""
    desk = Desk("ask", timeout_s=0.01)

    assert await desk.approvals.ask(ASKED) == chosen("reject")
    assert desk.last == events.PermissionResolved(id="p1", option="reject", by="deadline")
    with pytest.raises(AlreadyResolved):
        desk.approvals.answer("p1", "once")


@pytest.mark.parametrize(("policy", "option"), [("allow", "once"), ("deny", "reject")])
async def test_a_policy_answers_at_once_and_is_recorded(policy: Permission, option: str) -> None:
    desk = Desk(policy)

    assert await desk.approvals.ask(ASKED) == chosen(option)
    assert desk.last == events.PermissionResolved(id="p1", option=option, by="policy")


async def test_a_run_that_ends_meanwhile_waits_for_nobody() -> None:
    desk = Desk("ask")
    asking = asyncio.create_task(desk.approvals.ask(ASKED))
    await desk.asked.wait()
    asking.cancel()
    await asyncio.wait({asking})

    assert not desk.approvals.is_waiting
    with pytest.raises(AlreadyResolved):
        desk.approvals.answer("p1", "once")


@pytest.mark.parametrize(
    ("operator", "wanted", "asks_first", "answer"),
    [
        ("deny", None, False, "deny"),
        ("deny", "deny", False, "deny"),
        ("deny", "ask", True, "ask"),
        ("ask", None, True, "ask"),
        ("ask", "ask", True, "ask"),
        ("ask", "deny", True, "deny"),
        ("allow", None, False, "allow"),
        ("allow", "allow", False, "allow"),
        ("allow", "ask", True, "ask"),
        ("allow", "deny", False, "deny"),
    ],
)
def test_a_run_may_be_stricter_than_the_operator(
    operator: Permission, wanted: Permission | None, *, asks_first: bool, answer: Permission
) -> None:
    """Where the operator wants commands asked for, they are, whatever the run wants."""
    assert policy_for(operator, wanted) == PermissionPolicy(asks_first=asks_first, answer=answer)


@pytest.mark.parametrize("operator", ["deny", "ask"])
def test_a_run_may_not_be_laxer(operator: Permission) -> None:
    with pytest.raises(InvalidField):
        policy_for(operator, "allow")
