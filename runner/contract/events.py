"""The events of a run: what the runner says and everybody downstream passes on.

A run's events are numbered from 0 without gaps and end with exactly one terminal event. Where
events could not be kept, one `stream.gap` stands for all of them and has the number of the last
of them, so that every number is either an event's or inside a gap. The union is closed: a
reader that knows these types knows all there are. Readers ignore fields they do not know, so
that a newer runner may add some.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Event(BaseModel):
    """What all events share."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seq: int = Field(default=0, ge=0, description="Number of the event in its run, from 0.")


class RunQueued(_Event):
    """The run waits for a slot; sent again whenever its position changes."""

    type: Literal["run.queued"] = "run.queued"
    position: int = Field(ge=1, description="1 is next.")


class RunStarted(_Event):
    """OpenCode has the prompt."""

    type: Literal["run.started"] = "run.started"
    model: str = Field(description="`provider/model`.")
    session_id: str = Field(description="OpenCode's name of the session.")
    queued_s: float = Field(ge=0, description="Seconds between admission and a free slot.")


class TextDelta(_Event):
    """A piece of the answer."""

    type: Literal["text.delta"] = "text.delta"
    text: str


class ThoughtDelta(_Event):
    """A piece of the model's reasoning, where it shows any."""

    type: Literal["thought.delta"] = "thought.delta"
    text: str


class ToolStarted(_Event):
    """The agent begins to use a tool."""

    type: Literal["tool.started"] = "tool.started"
    id: str
    name: str = Field(description="Kind of tool: `execute`, `edit`, `read`, `search`, …")
    title: str
    input: Any = None


class ToolDiff(BaseModel):
    """A change of one file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    old_text: str | None = None
    new_text: str


class ToolUpdated(_Event):
    """News of a tool in use."""

    type: Literal["tool.updated"] = "tool.updated"
    id: str
    status: str | None = Field(
        default=None, description="`pending`, `in_progress`, `completed` or `failed`."
    )
    output: str | None = None
    diff: ToolDiff | None = None


class PlanEntry(BaseModel):
    """One step of the agent's plan."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    content: str
    status: str = "pending"
    priority: str = "medium"


class PlanUpdated(_Event):
    """The agent's plan, whole."""

    type: Literal["plan.updated"] = "plan.updated"
    entries: list[PlanEntry]


class ProviderWaiting(_Event):
    """The provider is busy or out of reach; the runner tries again by itself."""

    type: Literal["provider.waiting"] = "provider.waiting"
    attempt: int = Field(ge=1, description="Tries so far.")
    reason: str = Field(description="Stable word, e.g. `provider-busy`.")
    retry_s: float = Field(ge=0, description="Seconds until the next try.")


class PermissionOption(BaseModel):
    """One possible answer to a permission request."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str
    kind: str = ""


class PermissionRequested(_Event):
    """The agent asks whether it may."""

    type: Literal["permission.requested"] = "permission.requested"
    id: str
    title: str
    options: list[PermissionOption]
    deadline: str = Field(description="ISO 8601, UTC; afterwards the answer is no.")


class PermissionResolved(_Event):
    """A permission request was answered, by a person, the policy or the deadline."""

    type: Literal["permission.resolved"] = "permission.resolved"
    id: str
    option: str | None = Field(default=None, description="The option chosen; None: denied.")
    by: str = Field(default="policy", description="`user`, `deadline` or `policy`.")


class Usage(BaseModel):
    """Tokens used and what they cost, as far as the provider told."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_tokens: int = Field(default=0, description="Cached ones included.")
    output_tokens: int = Field(default=0, description="Those of the reasoning included.")
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = Field(default=None, description="null: the price is not known.")


class UsageUpdated(Usage, _Event):
    """Usage of the run so far."""

    type: Literal["usage.updated"] = "usage.updated"


class StreamGap(_Event):
    """Events that could not be kept, told honestly. Its `seq` is its `to`."""

    type: Literal["stream.gap"] = "stream.gap"
    from_: int = Field(alias="from", ge=0, description="Number of the first one missing.")
    to: int = Field(ge=0, description="Number of the last one missing.")

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class RunFinished(_Event):
    """Terminal: the agent ended its turn."""

    type: Literal["run.finished"] = "run.finished"
    stop_reason: str
    usage: Usage = Usage()
    duration_s: float = Field(ge=0)


class RunFailed(_Event):
    """Terminal: the run ended in an error."""

    type: Literal["run.failed"] = "run.failed"
    code: str = Field(description="Stable word, see docs/api.md.")
    message: str = Field(description="One sentence for people, in the caller's language.")


class RunCancelled(_Event):
    """Terminal: somebody ended the run."""

    type: Literal["run.cancelled"] = "run.cancelled"
    by: str = Field(description="`user`, `disconnect` or `shutdown`.")


RunEvent = Annotated[
    RunQueued
    | RunStarted
    | TextDelta
    | ThoughtDelta
    | ToolStarted
    | ToolUpdated
    | PlanUpdated
    | ProviderWaiting
    | PermissionRequested
    | PermissionResolved
    | UsageUpdated
    | StreamGap
    | RunFinished
    | RunFailed
    | RunCancelled,
    Field(discriminator="type"),
]

EVENTS: TypeAdapter[RunEvent] = TypeAdapter(RunEvent)
"""Reads and checks one event: `EVENTS.validate_json(line)`."""

Terminal = RunFinished | RunFailed | RunCancelled
"""The events after which nothing follows."""
