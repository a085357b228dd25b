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
        self._streams = Gauge(
            "gateway_streams_open", "Readers of runs right now.", registry=self.registry
        )
        self._token_checks = Counter(
            "gateway_token_checks",
            "Tokens looked at: known from the cache, or asked of PocketBase.",
            ["answer"],
            registry=self.registry,
        )

    def request_ended(self, route: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()

    def token_checked(self, *, known: bool) -> None:
        """Count a look at a token."""
        self._token_checks.labels("known" if known else "asked").inc()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a reader while the block runs."""
        with self._streams.track_inprogress():
            yield
