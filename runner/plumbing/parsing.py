"""Bodies and queries become models, or errors that name the field and never repeat a value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from runner.contract.problems import InvalidField, MalformedJson, UnknownField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

Model = TypeVar("Model", bound=BaseModel)


async def read_body(
    request: web.Request, model: type[Model], *, ignore_unknown: bool = False
) -> Model:
    """Return the JSON body of *request* as *model*.

    Raises:
        MalformedJson: The body is no JSON object.
        UnknownField: A field that *model* does not have, unless those are ignored.
        InvalidField: A field of the wrong type or out of bounds.
        aiohttp.web.HTTPRequestEntityTooLarge: More than the application's `client_max_size`.
    """
    raw = await request.read()
    try:
        body = json.loads(raw)
        # JSON can escape half a surrogate pair: a string that is no text and has no bytes.
        if b"\\ud" in raw.lower():
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise MalformedJson from exc
    if not isinstance(body, dict):
        raise MalformedJson
    if ignore_unknown:
        body = {name: value for name, value in body.items() if name in model.model_fields}
    return parse(body, model)


def parse(values: Mapping[str, Any], model: type[Model]) -> Model:
    """Return *values* as *model*; see `read_body` for the errors."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as exc:
        raise _as_problem(exc, model) from None


def _as_problem(exc: ValidationError, model: type[BaseModel]) -> UnknownField | InvalidField:
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    unknown = [_path(e["loc"]) for e in errors if e["type"] == "extra_forbidden"]
    if unknown:
        return UnknownField(
            fields=", ".join(unknown), allowed=", ".join(sorted(model.model_fields))
        )
    return InvalidField(fields=", ".join(f"{_path(e['loc'])} ({e['msg']})" for e in errors))


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:64] for part in loc)
