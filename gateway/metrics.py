"""The gateway's Prometheus metrics. Each is a function that returns the child for its labels.

The functions are cached, because the library takes a lock to look up a child. Labels are bounded: integrations and
paths are configured, statuses and results are closed sets.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class GatewayMetrics:
    """A gateway's metrics, in a registry of their own."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        """Take a function that returns how many operations and queries wait for the ledger."""
        self.registry: Final = CollectorRegistry()
        self.requests: Final = cache(
            Counter(
                "credits_gateway_requests",
                "Callbacks, by HTTP status",
                ["integration", "path", "status"],
                registry=self.registry,
            ).labels
        )
        self.outcomes: Final = cache(
            Counter(
                "credits_gateway_outcomes",
                "Operations and rejected callbacks, by result",
                ["integration", "result"],
                registry=self.registry,
            ).labels
        )
        self.balances: Final = cache(
            Counter(
                "credits_gateway_balances",
                "Balances that were replied",
                ["integration"],
                registry=self.registry,
            ).labels
        )
        self.conflicts: Final = cache(
            Counter(
                "credits_gateway_conflicts",
                "Ids sent again with other content, by each field that differed",
                ["integration", "field"],
                registry=self.registry,
            ).labels
        )
        self.seconds: Final = cache(
            Histogram(
                "credits_gateway_request_duration_seconds",
                "From the whole request to its reply",
                ["integration"],
                buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10),
                registry=self.registry,
            ).labels
        )
        self.rejections: Final = cache(
            Counter(
                "credits_gateway_rejections",
                "Requests refused unread, by reason; without an integration where the path names none",
                ["reason", "integration"],
                registry=self.registry,
            ).labels
        )
        self.connections_refused: Final = cache(
            Counter(
                "credits_gateway_connections_refused",
                "Connections refused or closed by a bound, by reason",
                ["reason"],
                registry=self.registry,
            ).labels
        )
        gauge = Gauge(
            "credits_gateway_in_flight", "Operations and queries that wait for the ledger", registry=self.registry
        )
        gauge.set_function(in_flight)
