"""docs/reference/metrics.md, from the registries of the processes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from gateway.cells import register_client_metrics
from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.rabbit import RabbitLedgerClient
from gateway.metrics import GatewayMetrics
from shared.message_keys import MessageKeys
from shared.settings import BrokerSettings
from tests.support.reference.markdown import bullet, described, section, sentence
from tests.support.reference.markdown import page as render
from worker.messaging.metrics import WorkerMetrics
from worker.operator.metrics import OperatorMetrics

INTRODUCTION: Final = """
Every process that serves counts for Prometheus at `/metrics`, each its own. Labels are bounded: integrations and paths
are configured, results and reasons are closed sets, and none names a player. Of a histogram there are `_bucket`, `_sum`
and `_count`. [What to watch](../operations/monitor.md) says which of them somebody should be woken for.
"""

GATEWAY: Final = """
On `[gateway] operations_port`. Where a gateway serves several cells, those that its connection to a cell's broker
counts have a further label `cell`.
"""

WORKER: Final = "On `[worker] metrics_host` and `metrics_port`."

OPERATOR: Final = "On the API's own port, without a token."


def page() -> str:
    """Return the page."""
    return render(
        "Metrics",
        INTRODUCTION,
        [
            section("Gateway", GATEWAY, _items(_gateway())),
            section("Worker", WORKER, _items(_registered(WorkerMetrics().registry))),
            section("Operator API", OPERATOR, _items(_registered(OperatorMetrics().registry))),
        ],
    )


def _gateway() -> Mapping[str, MetricWrapperBase]:
    """Return what a gateway counts, of one cell and of several."""
    found: dict[str, MetricWrapperBase] = {}
    for cells in (["main"], ["main", "other"]):
        metrics = GatewayMetrics(lambda: 0)
        keys = MessageKeys((b"k" * 32,))
        clients = {cell: RabbitLedgerClient(BrokerSettings(), keys, ConcurrencyLimit(1)) for cell in cells}
        register_client_metrics(metrics.registry, clients)
        found = {**_registered(metrics.registry), **found}
    return dict(sorted(found.items()))


def _registered(registry: CollectorRegistry) -> Mapping[str, MetricWrapperBase]:
    collectors: Iterable[object] = registry._collector_to_names  # noqa: SLF001  (there is no public way)
    metrics = [each for each in collectors if isinstance(each, MetricWrapperBase)]
    return {next(iter(metric.describe())).name: metric for metric in metrics}


def _items(metrics: Mapping[str, MetricWrapperBase]) -> Iterator[str]:
    for name, metric in metrics.items():
        (family,) = metric.describe()
        labels = f"{{{', '.join(metric._labelnames)}}}" if metric._labelnames else ""  # noqa: SLF001
        suffix = "_total" if family.type == "counter" else ""
        about = sentence(described(family.documentation, name))
        yield bullet(f"**`{name}{suffix}{labels}`** ({family.type}): {about}")
