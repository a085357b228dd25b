"""What the runner counts, by its runs' events."""

from __future__ import annotations

from runner.contract import events
from runner.metrics import Metrics

RUN = (
    events.RunQueued(position=1),
    events.RunStarted(model="a/b", session_id="s", queued_s=1.5),
    events.ProviderWaiting(attempt=1, reason="provider-busy", retry_s=1),
    events.TextDelta(text="a"),
    events.UsageUpdated(input_tokens=10, output_tokens=2, cost_usd=0.25),
    events.TextDelta(text="b"),
    events.UsageUpdated(input_tokens=30, output_tokens=3, cost_usd=0.5),
)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_run_is_counted_by_its_events() -> None:
    """Usage is told as the sum so far, and must not be counted twice."""
    metrics = Metrics()

    meter = metrics.of_run()
    for event in RUN:
        meter.take(event)

    assert value(metrics, "runner_runs_started_total") == 1
    assert value(metrics, "runner_queue_wait_seconds_sum") == 1.5
    assert value(metrics, "runner_first_text_seconds_count") == 1
    assert value(metrics, "runner_provider_retries_total", reason="provider-busy") == 1
    assert value(metrics, "runner_tokens_total", kind="input") == 30
    assert value(metrics, "runner_tokens_total", kind="output") == 3
    assert value(metrics, "runner_cost_usd_total") == 0.5


def test_ends_are_told_apart() -> None:
    """A rate of failures is of no use without its codes."""
    metrics = Metrics()

    for end in (
        events.RunFinished(stop_reason="end_turn", duration_s=1),
        events.RunFailed(code="provider-busy", message="x"),
        events.RunFailed(code="provider-busy", message="y"),
        events.RunCancelled(by="user"),
    ):
        metrics.of_run().take(end)

    assert value(metrics, "runner_runs_ended_total", outcome="finished", code="") == 1
    assert value(metrics, "runner_runs_ended_total", outcome="failed", code="provider-busy") == 2
    assert value(metrics, "runner_runs_ended_total", outcome="cancelled", code="user") == 1
