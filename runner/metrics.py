"""What the runner counts: no users, no runs, nothing of what they say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from runner.contract import events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from runner.contract.events import RunEvent
    from runner.pool.warm import WarmPool
    from runner.scheduler.scheduler import Scheduler

_WAIT_BUCKETS_S = (0.05, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_KINDS = ("input", "output", "cached", "reasoning")


class Metrics:
    """The counters of one runner, fed by its runs' events."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = self._counter("runner_runs_started", "Runs accepted.")
        self.ended = self._counter(
            "runner_runs_ended",
            "Runs ended: `finished`; `failed`, with their code; `cancelled`, by whom.",
            "outcome",
            "code",
        )
        self.retries = self._counter(
            "runner_provider_retries", "Model calls tried again, and why.", "reason"
        )
        self.tokens = self._counter(
            "runner_tokens",
            "Tokens by the provider's figures; cached ones are a part of the input, reasoning "
            "ones of the output.",
            "kind",
        )
        self.cost = self._counter("runner_cost_usd", "What they cost, as far as prices are known.")
        self.queue_wait = self._seconds(
            "runner_queue_wait_seconds", "From a run's acceptance to its slot."
        )
        self.first_text = self._seconds(
            "runner_first_text_seconds", "From a run's acceptance to its first text."
        )

    def of_run(self) -> RunMeter:
        """Count a run that was accepted; return what counts the rest of it."""
        self.started.inc()
        return RunMeter(self)

    def watch(self, scheduler: Scheduler, pool: WarmPool | None) -> None:
        """Tell also how full the runner is when it is asked."""
        self.registry.register(_Fullness(scheduler, pool))

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _seconds(self, name: str, about: str) -> Histogram:
        return Histogram(name, about, buckets=_WAIT_BUCKETS_S, registry=self.registry)


class RunMeter:
    """Counts one run by its events."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._accepted = time.monotonic()
        self._has_text = False
        self._usage = events.Usage()

    def take(self, event: RunEvent) -> None:
        """Count one event."""
        metrics = self._metrics
        match event:
            case events.RunStarted():
                metrics.queue_wait.observe(event.queued_s)
            case events.TextDelta() if not self._has_text:
                self._has_text = True
                metrics.first_text.observe(time.monotonic() - self._accepted)
            case events.ProviderWaiting():
                metrics.retries.labels(event.reason).inc()
            case events.UsageUpdated():
                self._take_usage(event)
            case events.RunFinished():
                metrics.ended.labels("finished", "").inc()
            case events.RunFailed():
                metrics.ended.labels("failed", event.code).inc()
            case events.RunCancelled():
                metrics.ended.labels("cancelled", event.by).inc()
            case _:
                pass

    def _take_usage(self, total: events.Usage) -> None:
        before, self._usage = self._usage, total
        for kind in _KINDS:
            name = f"{kind}_tokens"
            self._metrics.tokens.labels(kind).inc(getattr(total, name) - getattr(before, name))
        self._metrics.cost.inc(max(0.0, (total.cost_usd or 0) - (before.cost_usd or 0)))


class _Fullness(Collector):
    """Slots, queue and warm pool, as they are when somebody asks."""

    def __init__(self, scheduler: Scheduler, pool: WarmPool | None) -> None:
        self._scheduler = scheduler
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        scheduler, pool = self._scheduler, self._pool
        yield GaugeMetricFamily("runner_slots", "Slots.", scheduler.slots)
        yield GaugeMetricFamily("runner_slots_used", "Slots taken.", scheduler.running)
        yield GaugeMetricFamily("runner_queue_length", "Runs that wait.", scheduler.waiting)
        if pool is not None:
            yield GaugeMetricFamily("runner_pool_ready", "Warm sandboxes.", pool.idle)
            yield GaugeMetricFamily("runner_pool_booting", "Those on their way.", pool.booting)
            yield CounterMetricFamily("runner_pool_claims", "Warm ones lent.", pool.claims)
            yield CounterMetricFamily("runner_pool_misses", "Runs that booted.", pool.misses)
