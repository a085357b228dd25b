"""`/opencode/key`: the caller's own API key, write-only."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.handlers.input import body_of
from gateway.keys import IDENTITY, USER_KEYS
from gateway.models import KeyStatus, KeyUpdate
from runner.contract.problems import KeyUnreadable, TokenRequired

if TYPE_CHECKING:
    from pydantic import SecretStr

    from gateway.auth.tokens import Identity

# Of a shorter key four characters would say too much.
_LAST4_FROM_CHARS = 12


async def get_key(request: web.Request) -> web.Response:
    """`GET`: whether a key is set, and its last four characters. Never more."""
    try:
        key = await request.app[USER_KEYS].reveal(_signed_in(request))
    except KeyUnreadable:
        return _answer(KeyStatus(set=True, last4=None))
    return _answer(_status(key))


async def put_key(request: web.Request) -> web.Response:
    """`PUT`: keep a key for the caller, encrypted."""
    identity = _signed_in(request)
    update = await body_of(request, KeyUpdate)
    await request.app[USER_KEYS].store(identity, update.api_key)
    return _answer(_status(update.api_key))


async def delete_key(request: web.Request) -> web.Response:
    """`DELETE`: forget the caller's key."""
    await request.app[USER_KEYS].store(_signed_in(request), None)
    return web.Response(status=HTTPStatus.NO_CONTENT)


def _signed_in(request: web.Request) -> Identity:
    identity = request[IDENTITY]
    if not identity.signed_in:
        raise TokenRequired
    return identity


def _status(key: SecretStr | None) -> KeyStatus:
    if key is None:
        return KeyStatus(set=False, last4=None)
    text = key.get_secret_value()
    return KeyStatus(set=True, last4=text[-4:] if len(text) >= _LAST4_FROM_CHARS else None)


def _answer(status: KeyStatus) -> web.Response:
    return web.Response(
        body=status.model_dump_json().encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
