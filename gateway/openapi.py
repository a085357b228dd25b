"""The API as OpenAPI 3.1, made from the models that the handlers read and write with."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import models_json_schema

from gateway import models
from gateway.version import version
from runner.contract import problems
from runner.contract.events import RunEvent
from runner.contract.headers import NDJSON, PROBLEM_JSON, REQUEST_ID, RUN_ID
from runner.contract.requests import RUN_ID_PATTERN, PermissionAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable

_REF = "#/components/schemas/{model}"
_JSON = "application/json"


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


class Alive(BaseModel):
    """Body of `GET /test`."""

    status: str
    service: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that can be done.

    Attributes:
        summary: In a few words.
        good: The good status and the model of its body; None: no body.
        errors: What may go wrong.
        query: Model of the query.
        body: Model of the JSON body.
        headers: Names of the headers it reads.
        streams: Whether the good answer is a run's events.
        more: Other good statuses, and what they mean.
        public: Whether it needs no token.
    """

    summary: str
    good: tuple[HTTPStatus, type[BaseModel] | None]
    errors: tuple[type[problems.ServiceError], ...] = ()
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    streams: bool = False
    more: dict[HTTPStatus, str] = field(default_factory=dict)
    public: bool = False


_BODY_ERRORS = (
    problems.MalformedJson,
    problems.BodyTooLarge,
    problems.UnsupportedMediaType,
    problems.UnknownField,
    problems.InvalidField,
)
_PROMPT_ERRORS = (
    problems.BadRequest,
    problems.PromptRequired,
    problems.KeyRequired,
    problems.KeyUnreadable,
    problems.PromptTooLarge,
    problems.UnknownField,
    problems.InvalidField,
    problems.ModelNotAllowed,
    problems.SessionNotFound,
    problems.IdempotencyConflict,
    problems.TooManyRequests,
    problems.QueueFull,
    problems.OpenCodeUnavailable,
    problems.SandboxUnavailable,
)
_QUERY_ERRORS = (problems.BadRequest, problems.UnknownField, problems.InvalidField)
_SIGN_IN_ERRORS = (problems.TokenRequired, problems.TokenInvalid, problems.PocketBaseUnavailable)
_NOTHING_LEFT = {HTTPStatus.NO_CONTENT: "You have all there is: nothing follows `Last-Event-ID`."}
_OK, _ACCEPTED, _NO_CONTENT = HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT
_STREAM_HEADERS = ("Idempotency-Key", "Last-Event-ID")

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/test"): Operation(summary="Is the gateway alive?", good=(_OK, Alive), public=True),
    ("GET", "/opencode/health"): Operation(
        summary="How are the parts?",
        good=(_OK, models.Health),
        more={HTTPStatus.SERVICE_UNAVAILABLE: "The main job can't run."},
        public=True,
    ),
    ("GET", "/opencode/stream"): Operation(
        summary="Run a prompt and stream what happens",
        good=(_OK, None),
        streams=True,
        query=models.StreamRequest,
        headers=_STREAM_HEADERS,
        more=_NOTHING_LEFT,
        errors=(*_PROMPT_ERRORS, problems.NotAcceptable, problems.RunnerUnavailable),
    ),
    ("POST", "/opencode/stream"): Operation(
        summary="Run a prompt and stream what happens",
        good=(_OK, None),
        streams=True,
        body=models.StreamRequest,
        headers=_STREAM_HEADERS,
        more=_NOTHING_LEFT,
        errors=(
            *_BODY_ERRORS,
            *_PROMPT_ERRORS,
            problems.NotAcceptable,
            problems.RunnerUnavailable,
        ),
    ),
    ("POST", "/opencode/runs"): Operation(
        summary="Start a run that outlives this connection",
        good=(_ACCEPTED, models.RunAccepted),
        body=models.StreamRequest,
        headers=("Idempotency-Key",),
        errors=(*_BODY_ERRORS, *_PROMPT_ERRORS, problems.RunnerUnavailable),
    ),
    ("GET", "/opencode/runs"): Operation(
        summary="List your runs, newest first",
        good=(_OK, models.RunPage),
        query=models.PageQuery,
        errors=_QUERY_ERRORS,
    ),
    ("GET", "/opencode/runs/{id}"): Operation(
        summary="Look at a run",
        good=(_OK, models.RunInfo),
        errors=(problems.NotFound, problems.RunnerUnavailable),
    ),
    ("DELETE", "/opencode/runs/{id}"): Operation(
        summary="End a run",
        good=(_ACCEPTED, models.RunInfo),
        more={_OK: "It had ended before."},
        errors=(problems.NotFound, problems.RunnerUnavailable),
    ),
    ("GET", "/opencode/runs/{id}/events"): Operation(
        summary="Read a run's events, from the start or from where you left off, then live",
        good=(_OK, None),
        streams=True,
        query=models.EventsQuery,
        headers=("Last-Event-ID",),
        more=_NOTHING_LEFT,
        errors=(
            *_QUERY_ERRORS,
            problems.NotFound,
            problems.NotAcceptable,
            problems.RunnerUnavailable,
        ),
    ),
    ("POST", "/opencode/runs/{id}/permissions/{pid}"): Operation(
        summary="Answer what OpenCode asks",
        good=(_NO_CONTENT, None),
        body=PermissionAnswer,
        errors=(
            *_BODY_ERRORS,
            problems.NotFound,
            problems.AlreadyResolved,
            problems.RunnerUnavailable,
        ),
    ),
    ("GET", "/opencode/models"): Operation(
        summary="List the models you may use",
        good=(_OK, models.UsableModels),
        errors=(problems.RunnerUnavailable,),
    ),
    ("GET", "/opencode/key"): Operation(
        summary="Is an API key of yours set?", good=(_OK, models.KeyStatus)
    ),
    ("PUT", "/opencode/key"): Operation(
        summary="Set your API key",
        good=(_OK, models.KeyStatus),
        body=models.KeyUpdate,
        errors=_BODY_ERRORS,
    ),
    ("DELETE", "/opencode/key"): Operation(summary="Remove your API key", good=(_NO_CONTENT, None)),
}
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
