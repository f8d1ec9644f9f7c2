"""The worker process: it starts from the settings, serves, and stops without losing a message."""

import asyncio
import os
import signal
import socket
from typing import Final

import structlog
from prometheus_client import start_http_server

from shared.broker.access import require_access
from shared.broker.connection import keep_connected
from shared.errors import LedgerRefused, LedgerUnavailable, SettingsError
from shared.message_keys import MessageKeys, read_message_keys
from shared.runtime import tune_gc
from shared.settings import MEMORY, Settings, WorkerSettings
from worker.ledger.service import open_ledger_service
from worker.messaging.consumer import Consumer
from worker.messaging.metrics import WorkerMetrics

LEDGER_PAUSE_SECONDS: Final = 1.0
_log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError if it can't start with the settings or the tables."""
    if settings.broker.url == MEMORY:
        raise SettingsError("[broker] url: a worker needs RabbitMQ; with memory:// the gateway does its work")
    keys = read_message_keys(settings.broker)
    tune_gc()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    metrics = WorkerMetrics()
    if settings.worker.metrics_port:
        _serve_metrics(settings.worker, metrics)
    await require_access(settings.broker)
    await _serve_until_stopped(settings, keys, metrics, stop)


async def _serve_until_stopped(
    settings: Settings, keys: MessageKeys, metrics: WorkerMetrics, stop: asyncio.Event
) -> None:
    """Serve, and retry while the database is unavailable. Raises SettingsError if it refuses us at the first try."""
    is_first_try = True
    while not stop.is_set():
        try:
            await _serve(settings, keys, metrics, stop)
        except LedgerUnavailable as error:
            if is_first_try and isinstance(error, LedgerRefused):
                raise SettingsError(f"[ledger] database_url: {error}") from error
            _log.warning("waiting for the database", reason=str(error))
            await asyncio.sleep(LEDGER_PAUSE_SECONDS)
        is_first_try = False


def _serve_metrics(settings: WorkerSettings, metrics: WorkerMetrics) -> None:
    port = settings.metrics_port
    try:
        start_http_server(port, settings.metrics_host, metrics.registry)
    except OSError as error:
        raise SettingsError(f"[worker] metrics_port: can't serve at {port}: {error.strerror}") from None


async def _serve(settings: Settings, keys: MessageKeys, metrics: WorkerMetrics, stop: asyncio.Event) -> None:
    worker_id, shards = f"{socket.gethostname()}/{os.getpid()}", settings.broker.shards
    operations_max = settings.worker.batch_operations_max
    report_weaknesses = metrics.ledger_weaknesses.set
    async with open_ledger_service(settings, metrics.count_cache_fault, report_weaknesses) as ledger:
        consumer = Consumer(ledger, metrics, keys, worker_id, shards, operations_max, stop)
        await keep_connected(settings.broker, consumer.serve, stop)
    _log.info("worker stopped", worker=worker_id)
