"""Errors callers see: stable codes, statuses and RFC 9457 bodies.

ServiceError
├── BadRequest 400 ├── TokenRequired 401 ├── TokenInvalid 401 ├── KeyRequired 402 …
One class an error, in the order of their statuses below.
"""

from __future__ import annotations

from typing import Any

from runner.contract.messages import sentence


class ServiceError(Exception):
    """Base class: catch this to handle every expected failure.

    Attributes:
        status: HTTP status the failure is answered with.
        code: Stable word for programs.
        params: Values for the sentence's placeholders; public, never secret.
        retry_after_s: Seconds after which another try makes sense, if known.
    """

    status: int = 500
    code: str = "internal"

    def __init__(self, *, retry_after_s: float | None = None, **params: object) -> None:
        super().__init__(sentence(self.code, "en", **params))
        self.params = params
        self.retry_after_s = retry_after_s

    def sentence(self, language: str) -> str:
        """Return the sentence for people, in *language*."""
        return sentence(self.code, language, **self.params)

    def to_problem(self, language: str, request_id: str | None) -> dict[str, Any]:
        """Return the RFC 9457 body; `error`, `code` and `request_id` are ours."""
        text = self.sentence(language)
        return {
            "type": f"/problems/{self.code}",
            "title": sentence(self.code, "en", **self.params),
            "status": self.status,
            "detail": text,
            "error": text,
            "code": self.code,
            "request_id": request_id,
            **({"params": self.params} if self.params else {}),
        }


class BadRequest(ServiceError):
    """The request can't be understood."""

    status, code = 400, "bad-request"


class PromptRequired(BadRequest):
    """No prompt, or a blank one."""

    code = "prompt-required"


class MalformedRequest(BadRequest):
    """The request is no proper HTTP."""

    code = "malformed-request"


class MalformedJson(BadRequest):
    """The body is no JSON object."""

    code = "malformed-json"


class TokenRequired(ServiceError):
    """No token."""

    status, code = 401, "token-required"


class TokenInvalid(ServiceError):
    """A token that PocketBase does not accept (any more), or not one of a user."""

    status, code = 401, "token-invalid"


class KeyRequired(ServiceError):
    """Neither the caller nor the operator has an API key."""

    status, code = 402, "key-required"


class KeyUnreadable(ServiceError):
    """The stored API key was encrypted with a key that is gone."""

    status, code = 402, "key-unreadable"


class NotFound(ServiceError):
    """No such thing, or not the caller's."""

    status, code = 404, "not-found"


class MethodNotAllowed(ServiceError):
    """The route exists, with other methods."""

    status, code = 405, "method-not-allowed"


class NotAcceptable(ServiceError):
    """None of the formats the caller accepts is offered."""

    status, code = 406, "not-acceptable"


class IdempotencyConflict(ServiceError):
    """The idempotency key was used for another request."""

    status, code = 409, "idempotency-conflict"


class AlreadyResolved(ServiceError):
    """The permission request was answered before."""

    status, code = 409, "permission-resolved"


class PromptTooLarge(ServiceError):
    """The prompt exceeds the limit."""

    status, code = 413, "prompt-too-large"


class BodyTooLarge(ServiceError):
    """The body exceeds the limit."""

    status, code = 413, "body-too-large"


class UnsupportedMediaType(ServiceError):
    """The body is of another type than the route reads."""

    status, code = 415, "unsupported-media-type"


class UnknownField(ServiceError):
    """A field nobody reads: most likely a typo."""

    status, code = 422, "unknown-field"


class InvalidField(ServiceError):
    """A field with a value that can't be."""

    status, code = 422, "invalid-field"


class EventUnknown(ServiceError):
    """The reader says that it has events which the run has not had."""

    status, code = 422, "event-unknown"


class ModelNotAllowed(ServiceError):
    """The model is not on the allow-list."""

    status, code = 422, "model-not-allowed"


class SessionNotFound(ServiceError):
    """The session to go on with does not exist."""

    status, code = 422, "session-not-found"


class TooManyRequests(ServiceError):
    """The caller asks too often."""

    status, code = 429, "too-many-requests"


class QueueFull(ServiceError):
    """Every slot and every waiting place is taken."""

    status, code = 503, "queue-full"


class PocketBaseUnavailable(ServiceError):
    """PocketBase does not answer."""

    status, code = 503, "pocketbase-unavailable"


class RunnerUnavailable(ServiceError):
    """The runner does not answer."""

    status, code = 503, "runner-unavailable"


class RunnerRestarting(ServiceError):
    """The runner is about to end, and to be back: it takes no new runs."""

    status, code = 503, "runner-restarting"


class ContractMismatch(ServiceError):
    """Gateway and runner are of releases too far apart."""

    status, code = 503, "contract-mismatch"


class OpenCodeUnavailable(ServiceError):
    """OpenCode can't be started."""

    status, code = 503, "opencode-unavailable"


class SandboxUnavailable(ServiceError):
    """The sandbox backend can't enforce what is asked."""

    status, code = 503, "sandbox-unavailable"


class RunFailure(ServiceError):
    """A run ended in an error after it was accepted; `code` says which, see `messages`."""

    status = 502

    def __init__(self, code: str, **params: object) -> None:
        self.code = code
        super().__init__(retry_after_s=None, **params)


class ForeignProblem(ServiceError):
    """A problem another service answered with, passed on as it came."""

    def __init__(
        self, status: int, code: str, *, retry_after_s: float | None = None, **params: object
    ) -> None:
        self.status, self.code = status, code
        super().__init__(retry_after_s=retry_after_s, **params)
