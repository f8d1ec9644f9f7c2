"""What a worker counts, for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class WorkerMetrics:
    """A worker's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.credits: Final = Counter(
            "credits_worker_outcomes", "Operations that got an outcome, by result", ["result"], registry=self.registry
        )
        self.batch_operations: Final = Histogram(
            "credits_worker_batch_operations",
            "Operations and queries that were answered together",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000),
            registry=self.registry,
        )
        self.batch_seconds: Final = Histogram(
            "credits_worker_batch_duration_seconds",
            "From taking a batch to its replies",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self.late: Final = Counter(
            "credits_worker_late_messages", "Messages that were past their deadline", registry=self.registry
        )
        self.dead: Final = Counter(
            "credits_worker_dead_messages",
            "Messages put aside, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.dropped: Final = Counter(
            "credits_worker_dropped_messages",
            "Messages that were not kept, by reason: the queue for what nobody signed is full, or they held no credits",
            ["reason"],
            registry=self.registry,
        )
        self.deferred: Final = Counter(
            "credits_worker_deferred_messages",
            "Messages that were left to the late queue unread, because too many bytes waited",
            registry=self.registry,
        )
        self.cache_faults: Final = Counter(
            "credits_worker_cache_faults",
            "What the shared cache did wrong: values that do not verify, calls that failed, or were refused",
            ["kind"],
            registry=self.registry,
        )
        self.ledger_weaknesses: Final = Gauge(
            "credits_worker_ledger_weaknesses",
            "Settings of the database by which wins can be lost that were told as paid",
            registry=self.registry,
        )

    def count_cache_fault(self, kind: str) -> None:
        """Count one fault of the shared cache."""
        self.cache_faults.labels(kind).inc()
