"""Prepare PocketBase's accounts: the superuser's password, and a demo user in an empty house."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.plumbing.settings import BadSettings

if TYPE_CHECKING:
    from stack.parts import Part

_TIMEOUT_S = 60.0  # migrations of a large database included


@dataclass(frozen=True, slots=True)
class Accounts:
    """What the set-up found or made.

    Attributes:
        demo_exists: Whether there is a demo user.
        demo_password_works: Whether the stack's password is still theirs.
        demo_token: A fresh token of theirs, or "".
    """

    demo_exists: bool
    demo_password_works: bool
    demo_token: str


async def set_up(part: Part) -> Accounts:
    """Run PocketBase's set-up command to its end.

    Raises:
        BadSettings: It can't be done, most likely for a value that PocketBase does not accept.
    """
    process = await asyncio.create_subprocess_exec(
        *part.command,
        env=dict(part.env),
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=part.pass_fds,
        start_new_session=True,  # Ctrl-C is for the supervisor
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer, words = await process.communicate()
    except TimeoutError:
        raise BadSettings(f"{part.name} did not end in {_TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _understood(answer.decode(errors="replace"), words.decode(errors="replace"))


def _understood(answer: str, words: str) -> Accounts:
    try:
        found = json.loads(answer)
    except ValueError:
        last = words.strip().splitlines()[-1:] or ["it said nothing"]  # an answer holds a token
        raise BadSettings(f"PocketBase can't be set up: {last[0]}") from None
    if error := found.get("error"):
        raise BadSettings(f"PocketBase can't be set up: {error}")
    return Accounts(
        demo_exists=found["demo"] != "none",
        demo_password_works=found["demo_password_works"],
        demo_token=found["demo_token"],
    )
