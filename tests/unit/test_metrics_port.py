"""A worker whose metrics have no port says so in one line."""

import socket

import pytest

from shared.errors import SettingsError
from shared.settings import WorkerSettings
from worker.messaging.metrics import WorkerMetrics
from worker.messaging.process import _serve_metrics


def test_port_of_metrics_that_is_taken_stops_the_start_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"^\[worker\] metrics_port: can't serve at {port}: Address"):
            _serve_metrics(WorkerSettings(metrics_port=port), WorkerMetrics())
