"""What the gateway counts: no users, no runs, nothing that a caller chose."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Iterator


class Metrics:
    """The counters of one gateway process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests",
            "Requests answered, by route and status; 499: the caller left before.",
            ["route", "status"],
            registry=self.registry,
        )
        self._counters: dict[tuple[str, int], Counter] = {}
        self._streams = Gauge(
            "gateway_streams_open", "Readers of runs right now.", registry=self.registry
        )
        token_checks = Counter(
            "gateway_token_checks",
            "Tokens looked at: known from the cache, or asked of PocketBase.",
            ["answer"],
            registry=self.registry,
        )
        self._tokens_known = token_checks.labels("known")
        self._tokens_asked = token_checks.labels("asked")

    def request_ended(self, route: str, status: int) -> None:
        """Count a request."""
        counter = self._counters.get((route, status))
        if counter is None:  # labels are looked up by text, which costs more than counting
            counter = self._counters[route, status] = self._requests.labels(route, str(status))
        counter.inc()

    def token_checked(self, *, known: bool) -> None:
        """Count a look at a token."""
        (self._tokens_known if known else self._tokens_asked).inc()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a reader while the block runs."""
        with self._streams.track_inprogress():
            yield
