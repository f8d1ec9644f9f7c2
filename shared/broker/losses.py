"""Logs lost connections to the broker: the first at once, later ones in at most one line a second.

While all nodes are down each is tried again and again, so a line for each attempt would be several a second.
"""

import asyncio
from typing import Final

import structlog

LINE_EVERY_SECONDS: Final = 1.0

_log = structlog.get_logger()


def reason_of(error: BaseException) -> str:
    """Return why the broker was lost, also for an error without a text."""
    if text := str(error):
        return text
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, StopAsyncIteration):  # raised when a proxy drops the connection, see BROKER_FAULTS
        return "the connection was accepted and closed without an answer"
    return repr(error)


class LossLog:
    """Logs the lost connections of one process. Its owner calls `flush` when it stops."""

    def __init__(self) -> None:
        """Start without any losses."""
        self._timer: asyncio.TimerHandle | None = None
        self._nodes: Final[dict[str, int]] = {}
        self._error: BaseException | None = None

    def record(self, node: str, error: BaseException) -> None:
        """Log a connection to a node that was lost or not made, together with others of the same second."""
        self._nodes[node] = self._nodes.pop(node, 0) + 1
        self._error = error
        if self._timer is None:
            self._write_and_wait()

    def flush(self) -> None:
        """Write all lines that are due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write()

    def _write_and_wait(self) -> None:
        self._timer = None
        if self._write():
            self._timer = asyncio.get_running_loop().call_later(LINE_EVERY_SECONDS, self._write_and_wait)

    def _write(self) -> bool:
        """Write one line about all losses, with the last one's reason. Return whether there were any."""
        if self._error is None:
            return False
        error, nodes, times = self._error, ", ".join(self._nodes), sum(self._nodes.values())
        self._error = None
        self._nodes.clear()
        more = {"times": times} if times > 1 else {}
        _log.warning("broker lost", node=nodes, error=type(error).__name__, reason=reason_of(error), **more)
        return True
