"""The Prometheus metrics of the operator API."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram


class OperatorMetrics:
    """The operator API's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.requests: Final = Counter(
            "credits_operator_requests",
            "Requests, by operation and HTTP status",
            ["operation", "status"],
            registry=self.registry,
        )
        self.connections_refused: Final = Counter(
            "credits_operator_connections_refused",
            "Connections refused or closed by a bound, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.unaudited_refusals: Final = Counter(
            "credits_operator_unaudited_refusals",
            "Refused changes and attempts that are not in the audit log: too many of one user, or the books"
            " gave no answer",
            registry=self.registry,
        )
        self.seconds: Final = Histogram(
            "credits_operator_request_duration_seconds",
            "From a request to its reply",
            ["operation"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
