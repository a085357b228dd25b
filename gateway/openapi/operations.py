"""What can be done with the API, and what may come of it: the table behind the document."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic import BaseModel

from gateway import models
from runner.contract import problems
from runner.contract.requests import PermissionAnswer


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
_READING_ERRORS = (problems.NotAcceptable, problems.EventUnknown, problems.RunnerUnavailable)
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
        errors=(*_PROMPT_ERRORS, *_READING_ERRORS),
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
            *_READING_ERRORS,
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
            *_READING_ERRORS,
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
    ("GET", "/opencode/usage"): Operation(
        summary="See what your runs have used",
        good=(_OK, models.UsageReport),
        query=models.UsageQuery,
        errors=_QUERY_ERRORS,
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
