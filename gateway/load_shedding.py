"""Load shedding: callbacks that a ledger has no room for are answered 'send it again', as cheaply as possible.

Each callback is admitted or shed once, by its ledger's `ConcurrencyLimit`. `LoadShedder` decides on a short one
that arrived whole before it costs a task, because under heavy overload the gateway has little time left for
refusals, and marks it if it is admitted. `CallbackHandler.handle` decides on all others: those that are long,
arrived in pieces, wait behind another request of their connection or close it, and those whose client's address
must be checked first. A shed callback is neither authenticated nor parsed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.metrics import GatewayMetrics
from gateway.providers.base import Callback, CallbackRejected, Provider, Reply
from gateway.time_slices import SHORT_BYTES_MAX, TimeSlices
from shared.http import Interceptor, Request, response_bytes
from shared.log_limit import SummedLog
from shared.outcome import Outcome, OutcomeCode

_UNAVAILABLE: Final = Outcome(OutcomeCode.UNAVAILABLE)
_log = structlog.get_logger()


class ShedLog(SummedLog[str]):
    """Counts shed callbacks for each integration; logs the sums once a second, and adds them to the metrics.

    A log line and two counters for each callback would cost as much as the refusal itself. `add` counts the items
    of a request, such as credits; `record_request` counts the request.
    """

    def __init__(self, metrics: GatewayMetrics) -> None:
        """Take the metrics that the sums are added to."""
        super().__init__()
        self._metrics: Final = metrics
        self._requests: Final = Counter[tuple[str, str, int]]()
        self._exported: Final = Counter[str]()
        """How many of the items that are not logged yet the metrics have already."""

    def record_request(self, integration: str, path: str, status: int) -> None:
        """Count one request by the HTTP status of its response."""
        self._requests[integration, path, status] += 1

    def export(self) -> None:
        """Bring the metrics up to date."""
        for labels, number in self._requests.items():
            self._metrics.requests(*labels).inc(number)
        self._requests.clear()
        for integration, number in self._unlogged.items():
            outcomes = self._metrics.outcomes(integration, OutcomeCode.UNAVAILABLE.value)
            outcomes.inc(number - self._exported[integration])
            self._exported[integration] = number

    def flush(self) -> None:
        """Export and log all that has been counted."""
        self.export()
        self._exported.clear()
        super().flush()

    def _write(self, kind: str, number: int) -> None:
        _log.warning("turned away under overload", integration=kind, callbacks=number)


class Admission:
    """Admits or refuses callbacks before they run, by the limit of the ledger that they would call.

    All requests that arrive in one turn of the event loop are decided on before the first of them runs, so the
    limit does not count them yet: those that were admitted in this turn are counted here. Copies of a request
    share one call to the ledger, so they count once.
    """

    def __init__(self, limit: ConcurrencyLimit) -> None:
        """Take the limit of the ledger that the callbacks will call."""
        self._limit: Final = limit
        self._admitted: Final = set[int]()
        """The hashes of path and body of the requests that were admitted in this turn."""

        self._is_open = True
        """Whether none was refused in this turn."""

    def admits(self, path: bytes, body: bytes) -> bool:
        """Admit one request, or refuse it and all that follow in this turn."""
        if not self._is_open:
            return False
        loop = asyncio.get_running_loop()
        if not self._admitted:  # it is the first of this turn
            loop.call_soon(self._end_turn)
        key = hash((path, body))
        if key in self._admitted:
            return True
        self._is_open = not self._limit.is_exceeded(len(self._admitted), loop.time())
        if self._is_open:
            self._admitted.add(key)
        return self._is_open

    def _end_turn(self) -> None:
        """Forget the admitted requests: their tasks run now, and the limit counts them."""
        self._admitted.clear()
        self._is_open = True


@dataclass(slots=True)
class SheddableRoute:
    """One path of an integration whose callbacks may be shed before they cost a task."""

    provider: Provider[Any, Any]
    path: str
    body_bytes_max: int
    admission: Admission
    shed_log: ShedLog
    reject: Callable[[Callback, Outcome], Reply]
    """Counts, logs and renders a request that is malformed."""

    decided_bytes_max: int = field(init=False)
    """The longest body that is decided on here."""

    _constant: tuple[int, bytes] | None = field(init=False, default=None)
    """Status and response of every shed callback, once known, for a provider that sends all the same."""

    def __post_init__(self) -> None:
        """Set the size up to which a request is decided on here; the handler decides on longer ones."""
        self.decided_bytes_max = min(self.body_bytes_max, SHORT_BYTES_MAX)

    def response(self, body: bytes) -> bytes | None:
        """Return the HTTP response that says 'send it again', or None for a request of many items."""
        items = 1
        if self._constant is not None:
            status, response = self._constant
        else:
            callback = Callback(self.path, body)
            if not self.provider.holds_few(callback):
                return None
            items, reply = self._render(callback)
            headers = ("content-type", "application/json"), *reply.headers
            status, response = reply.status, response_bytes(reply.status, headers, reply.body)
            if not self.provider.retry_reply_varies:
                self._constant = status, response
        if items:
            self.shed_log.add(self.provider.name, items)
        self.shed_log.record_request(self.provider.name, self.path, status)
        return response

    def _render(self, callback: Callback) -> tuple[int, Reply]:
        """Return the number of items that are shed, and the reply; a malformed request is rejected instead."""
        try:
            items = self.provider.split(callback)
        except CallbackRejected as rejected:
            return 0, self.reject(callback, rejected.outcome)
        replies = [self.provider.render(item, _UNAVAILABLE) for item in items]
        return len(items), self.provider.join(callback, replies)


class LoadShedder(Interceptor):
    """Answers callbacks 'send it again' while the ledger that they would call has no room.

    Each route has the admission of its own cell, so the overload of one cell sheds nothing of another.
    """

    def __init__(self, routes: Mapping[str, SheddableRoute]) -> None:
        """Take the routes by path, such as "/klas/credit"."""
        self._routes: Final = {path.encode(): route for path, route in routes.items()}

    def answer(self, request: Request) -> bytes | None:
        """Return the response to a callback that is shed, or None to have the application answer."""
        path = request.path
        route = self._routes.get(path)
        if route is None or request.method != b"POST":
            return None
        body = bytes(request.body)
        if len(body) > route.decided_bytes_max:
            return None
        if route.admission.admits(path, body):
            request.is_admitted = True
            return None
        return route.response(body)


async def shed_items(
    provider: Provider[Any, Any], items: Sequence[Callback], slices: TimeSlices, log: ShedLog
) -> list[Reply]:
    """Return the reply 'send it again' to each item of a request, pausing between those of a bulk request."""
    log.add(provider.name, len(items))
    replies = []
    for item in items:
        if len(items) > 1:
            await slices.pause_if_due()
        replies.append(provider.render(item, _UNAVAILABLE))
    return replies
