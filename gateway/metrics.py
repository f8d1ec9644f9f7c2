"""What a gateway counts, for Prometheus."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class GatewayMetrics:
    """A gateway's counters, in a registry of their own."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        """Take what tells how many questions wait for the ledger."""
        self.registry: Final = CollectorRegistry()
        self.requests: Final = Counter(
            "credits_requests",
            "Callbacks, by HTTP status",
            ["integration", "path", "status"],
            registry=self.registry,
        )
        self.outcomes: Final = Counter(
            "credits_outcomes",
            "Credits and balance questions, by result",
            ["integration", "result"],
            registry=self.registry,
        )
        self.conflicts: Final = Counter(
            "credits_conflicts",
            "Ids sent again with other content, by each field that differed",
            ["integration", "field"],
            registry=self.registry,
        )
        self.seconds: Final = Histogram(
            "credits_request_seconds",
            "From the whole request to its reply",
            ["integration"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        gauge = Gauge("credits_in_flight", "Questions that wait for the ledger", registry=self.registry)
        gauge.set_function(in_flight)
