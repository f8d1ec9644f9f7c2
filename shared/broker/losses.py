"""Log lines about lost connections to the broker: the first at once, and then one line a second at most.

While all nodes are away each is tried again and again: a line for each try would be several a second.
"""

import asyncio
from typing import Final

import structlog

LINE_EVERY_SECONDS: Final = 1.0

_log = structlog.get_logger()


def reason_of(error: BaseException) -> str:
    """Return why the broker is lost, in words also where the error has none."""
    if text := str(error):
        return text
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, StopAsyncIteration):  # by a proxy, see BROKER_FAULTS
        return "the connection was accepted and closed without an answer"
    return repr(error)


class LossLog:
    """Logs the losses of one process. Whoever owns one calls `flush` when it ends."""

    def __init__(self) -> None:
        """Begin with nothing to write."""
        self._pause: asyncio.TimerHandle | None = None
        self._nodes: Final[dict[str, int]] = {}
        self._error: BaseException | None = None

    def record(self, node: str, error: BaseException) -> None:
        """Log that a connection to a node was lost or not made, with others of the same second."""
        self._nodes[node] = self._nodes.pop(node, 0) + 1
        self._error = error
        if self._pause is None:
            self._write_and_pause()

    def flush(self) -> None:
        """Write what has not been written."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._write()

    def _write_and_pause(self) -> None:
        self._pause = None
        if self._write():
            self._pause = asyncio.get_running_loop().call_later(LINE_EVERY_SECONDS, self._write_and_pause)

    def _write(self) -> bool:
        """Write one line about all losses, with the last one's reason. Tell whether there were any."""
        if self._error is None:
            return False
        error, nodes, times = self._error, ", ".join(self._nodes), sum(self._nodes.values())
        self._error = None
        self._nodes.clear()
        more = {"times": times} if times > 1 else {}
        _log.warning("broker lost", node=nodes, error=type(error).__name__, reason=reason_of(error), **more)
        return True
