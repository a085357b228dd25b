"""The API as OpenAPI 3.1, made from the models that the handlers read and write with."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import models_json_schema

from gateway.openapi.operations import OPERATIONS, Operation
from gateway.version import version
from runner.contract import problems
from runner.contract.events import RunEvent
from runner.contract.headers import NDJSON, PROBLEM_JSON, REQUEST_ID, RUN_ID
from runner.contract.requests import RUN_ID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable

_REF = "#/components/schemas/{model}"
_JSON = "application/json"
_SIGN_IN_ERRORS = (problems.TokenRequired, problems.TokenInvalid, problems.PocketBaseUnavailable)


class Problem(BaseModel):
    """An error (RFC 9457), with words of ours."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    error: str = Field(description="One sentence for people, by `Accept-Language`.")
    code: str = Field(description="A stable word for programs.")
    request_id: str | None
    params: dict[str, Any] | None = Field(default=None, description="What the sentence names.")


_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "pattern": RUN_ID_PATTERN, "description": "Id of a run."},
    "pid": {
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]+$",
        "description": "`id` of a `permission.requested` event.",
    },
}
_HEADER_PARAMETERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "type": "string",
        "pattern": "^[!-~]{1,255}$",
        "description": "Send the same word with the same request again, within a day, to get the "
        "same run and not a second one.",
    },
    "Last-Event-ID": {
        "type": "string",
        "pattern": "^[0-9]{1,15}$",
        "description": "Number of the last event you have.",
    },
}


def document() -> dict[str, Any]:
    """Return the API as an OpenAPI 3.1 document."""
    schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        described = paths.setdefault(path, _parameters_of_path(path))
        described[method.lower()] = _described(method, path, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenCode Multiuser",
            "version": version(),
            "description": "Everything else at this origin is PocketBase's own API: sign in with "
            "`POST /api/collections/users/auth-with-password`.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A PocketBase token of a user.",
                }
            },
        },
    }


def _schemas() -> dict[str, Any]:
    wanted: dict[type[BaseModel], Any] = {Problem: "serialization"}
    for operation in OPERATIONS.values():
        if operation.body is not None:
            wanted[operation.body] = "validation"
        if operation.good[1] is not None:
            wanted[operation.good[1]] = "serialization"
    _, definitions = models_json_schema(list(wanted.items()), ref_template=_REF)
    events = TypeAdapter(RunEvent).json_schema(ref_template=_REF)
    schemas: dict[str, Any] = {**definitions["$defs"], **events.pop("$defs")}
    schemas["RunEvent"] = events
    return schemas


def _described(
    method: str, path: str, operation: Operation, schemas: dict[str, Any]
) -> dict[str, Any]:
    words = [word.strip("{}") for word in path.split("/") if word and word != "opencode"]
    described: dict[str, Any] = {
        "operationId": "_".join([method.lower(), *words]),
        "summary": operation.summary,
        "security": [] if operation.public else [{"token": []}],
        "responses": _responses(operation),
    }
    parameters = [
        _parameter(name, "header", dict(_HEADER_PARAMETERS[name])) for name in operation.headers
    ]
    if operation.query is not None:
        parameters += _query_parameters(operation.query)
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        schema = {"$ref": _REF.format(model=operation.body.__name__)}
        assert operation.body.__name__ in schemas  # noqa: S101
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    return described


def _parameters_of_path(path: str) -> dict[str, Any]:
    names = [word.strip("{}") for word in path.split("/") if word.startswith("{")]
    if not names:
        return {}
    return {
        "parameters": [
            {**_parameter(name, "path", dict(_PATH_PARAMETERS[name])), "required": True}
            for name in names
        ]
    }


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    properties = model.model_json_schema(ref_template=_REF)["properties"]
    # In a query a field that is null is one that is left out.
    found = []
    for name, schema in properties.items():
        simple = {key: value for key, value in schema.items() if key not in {"anyOf", "title"}}
        for choice in schema.get("anyOf", []):
            if choice.get("type") != "null":
                simple |= choice
        if simple.get("default", ...) is None:
            del simple["default"]
        found.append(_parameter(name, "query", simple))
    return found


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    description = schema.pop("description", "")
    return {"name": name, "in": place, "description": description, "schema": schema}


def _responses(operation: Operation) -> dict[str, Any]:
    status, model = operation.good
    responses = {str(status.value): _good(operation, model, status.phrase)}
    for other, meaning in operation.more.items():
        empty = other is HTTPStatus.NO_CONTENT
        responses[str(other.value)] = _good(operation, None if empty else model, meaning, empty)
    by_status: dict[int, list[str]] = {}
    always = () if operation.public else _SIGN_IN_ERRORS
    for error in (*always, *operation.errors):
        codes = by_status.setdefault(error.status, [])
        if error.code not in codes:
            codes.append(error.code)
    for number, codes in sorted(by_status.items()):
        responses[str(number)] = _problem(codes, with_retry=number in {429, 503})
    return responses


def _good(
    operation: Operation,
    model: type[BaseModel] | None,
    description: str,
    empty: bool = False,  # noqa: FBT001, FBT002
) -> dict[str, Any]:
    response: dict[str, Any] = {"description": description, "headers": _headers(REQUEST_ID)}
    if operation.streams and not empty:
        response["headers"] = _headers(REQUEST_ID, RUN_ID)
        response["description"] = (
            "A run's events, each at once. As `text/event-stream` each has `id` (its number), "
            "`event` (its type) and `data` (a RunEvent as JSON); as `application/x-ndjson` each "
            "is a line with a RunEvent; as `text/plain` there is the agent's text alone, and a "
            "last line that says how the run ended."
        )
        text = {"type": "string"}
        response["content"] = {
            "text/plain": {"schema": text},
            "text/event-stream": {"schema": text},
            NDJSON: {"schema": {**text, "x-line": {"$ref": _REF.format(model="RunEvent")}}},
        }
    elif model is not None:
        response["content"] = {_JSON: {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return response


def _problem(codes: Iterable[str], *, with_retry: bool) -> dict[str, Any]:
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "headers": _headers(REQUEST_ID, *(["Retry-After"] if with_retry else [])),
        "content": {PROBLEM_JSON: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}} for name in names}
