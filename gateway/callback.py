"""The handler of callbacks, from the bytes of a request to the provider's reply.

    split -> authenticate -> parse -> (look up the player) -> normalize -> call the ledger -> render -> join

Every failure on the way has an `OutcomeCode`, and each provider renders every code in its own protocol.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import structlog

from gateway.ledger_client.client import LedgerClient
from gateway.load_shedding import ShedLog, shed_items
from gateway.metrics import GatewayMetrics
from gateway.players import PlayerCache
from gateway.providers.base import Callback, CallbackRejected, Provider, Reply
from gateway.single_flight import LedgerReply, SingleFlight
from gateway.time_slices import SliceScheduler, TimeSlices, is_short
from shared.errors import LedgerUnavailable
from shared.operations import Credit
from shared.outcome import Balance, Outcome, OutcomeCode
from shared.queries import FindPlayer, FindSession

BALANCE = "balance"
"""What the log calls the end of a query; an operation ends with an outcome code."""

REJECTED_ITEMS_MAX: Final = 100
"""When this many items at the start of a bulk request are all rejected, the rest is answered UNAVAILABLE unread."""

_log = structlog.get_logger()
_LEVELS = {
    OutcomeCode.CONFLICT: "error",
    OutcomeCode.UNPOSTABLE: "error",
    OutcomeCode.UNAVAILABLE: "warning",
    OutcomeCode.BAD_SIGNATURE: "warning",
    OutcomeCode.UNKNOWN_CALLER: "warning",
}

_LEDGER_CALLS: Final = (Credit, FindPlayer)
"""The types of prepared callbacks that need a call to the ledger; anything else is a reply already."""

_UNAVAILABLE = Outcome(OutcomeCode.UNAVAILABLE)
_UNKNOWN_PLAYER = Outcome(OutcomeCode.UNKNOWN_PLAYER)


@dataclass(frozen=True, slots=True)
class CallbackHandler:
    """Handles the callbacks of one integration: its provider's protocol, and the ledger that it calls."""

    provider: Provider[Any, Any]
    ledger: LedgerClient
    players: PlayerCache
    metrics: GatewayMetrics
    shed_log: ShedLog
    scheduler: SliceScheduler = field(default_factory=SliceScheduler)
    """Shared by all integrations of a process."""

    single_flight: SingleFlight = field(init=False)

    def __post_init__(self) -> None:
        """Start with no call under way."""
        object.__setattr__(self, "single_flight", SingleFlight(self.ledger))

    async def handle(self, callback: Callback, slices: TimeSlices, *, is_admitted: bool = False) -> Reply:
        """Answer one HTTP request within the provider's window.

        Sets `slices.is_signed` once a signature was good. `is_admitted` tells that load shedding has decided on the
        request already. The items of a bulk request are independent: none fails because another does.
        """
        started = perf_counter()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.provider.settings.reply_within_seconds
        if not is_short(callback.body):
            await slices.pause_if_due()
        is_shed = not is_admitted and self.ledger.limit.is_exceeded(0, loop.time())
        try:
            items = self.provider.split(callback)
        except CallbackRejected as rejected:
            return self._reject(callback, rejected.outcome, started)
        if is_shed:
            replies = await shed_items(self.provider, items, slices, self.shed_log)
        elif len(items) == 1:
            replies = [await self._handle_one(items[0], deadline, slices, started)]
        else:
            replies = await self._handle_bulk(items, deadline, slices, started)
        return self.provider.join(callback, replies)

    async def _handle_one(self, item: Callback, deadline: float, slices: TimeSlices, started: float) -> Reply:
        """Answer the only item of a request."""
        call = await self._prepare(item, deadline, slices)
        reply = (await self._call_ledger([call], deadline))[0] if isinstance(call, _LEDGER_CALLS) else call
        return self._render(item, call, reply, started)

    async def _handle_bulk(
        self, items: Sequence[Callback], deadline: float, slices: TimeSlices, started: float
    ) -> list[Reply]:
        """Answer each item of a bulk request, in time slices."""
        prepared = await self._prepare_bulk(items, deadline, slices)
        calls = [each for each in prepared if isinstance(each, _LEDGER_CALLS)]
        ledger_replies = iter(await self._call_ledger(calls, deadline) if calls else ())
        summed: list[Outcome] = []
        logged = set[str]()
        replies = []
        for item, call in zip(items, prepared, strict=True):
            await slices.pause_if_due()
            if isinstance(call, _LEDGER_CALLS):
                is_first = _id_of(call) not in logged
                logged.add(_id_of(call))
                reply = next(ledger_replies)
            else:
                is_first, reply = False, call
            replies.append(self._render(item, call, reply, started, None if is_first else summed))
        if summed:
            self._record_summed(summed, started)
        return replies

    async def _prepare_bulk(
        self, items: Sequence[Callback], deadline: float, slices: TimeSlices
    ) -> list[Credit | FindPlayer | LedgerReply]:
        """Return for each item the call to the ledger, or the reply where none is needed."""
        prepared: list[Credit | FindPlayer | LedgerReply] = []
        rejected = 0
        for item in items:
            if prepared:  # no pause before the first, which shows whether the request is signed
                await slices.pause_if_due()
            if rejected == REJECTED_ITEMS_MAX == len(prepared):
                return prepared + [_UNAVAILABLE] * (len(items) - len(prepared))
            prepared.append(await self._prepare(item, deadline, slices))
            if isinstance(prepared[-1], Outcome):
                rejected += 1
        return prepared

    def reject(self, callback: Callback, outcome: Outcome) -> Reply:
        """Count, log and render a request that can't be handled, such as one with too large a body."""
        return self._reject(callback, outcome, perf_counter())

    def _reject(self, callback: Callback, outcome: Outcome, started: float) -> Reply:
        self._record(None, outcome, started)
        return self.provider.render(callback, outcome)

    async def _prepare(
        self, callback: Callback, deadline: float, slices: TimeSlices
    ) -> Credit | FindPlayer | LedgerReply:
        """Return the call to the ledger, or the reply where none is needed."""
        try:
            return await self._normalize(callback, deadline, slices)
        except CallbackRejected as rejected:
            return rejected.outcome
        except LedgerUnavailable as error:
            return error
        except Exception:  # noqa: BLE001  (a defect of ours: the provider must send the request again)
            _log.exception("callback failed", integration=self.provider.name)
            return _UNAVAILABLE

    async def _normalize(self, callback: Callback, deadline: float, slices: TimeSlices) -> Credit | FindPlayer:
        """Turn a callback into a call to the ledger. Raises CallbackRejected and LedgerUnavailable."""
        provider = self.provider
        provider.authenticate(callback)
        slices.is_signed = True
        message = provider.parse(callback)
        lookup, player = provider.lookup(message), None
        if lookup is not None:
            player = await self.players.find(lookup, deadline, callback.body)
            if player is None:
                unknown_session = isinstance(lookup, FindSession)
                raise CallbackRejected(OutcomeCode.UNKNOWN_SESSION if unknown_session else OutcomeCode.UNKNOWN_PLAYER)
        return provider.normalize(message, player)

    async def _call_ledger(self, calls: Sequence[Credit | FindPlayer], deadline: float) -> Sequence[LedgerReply]:
        """Return the ledger's replies."""
        try:
            return await self.single_flight.call_all(calls, deadline)
        except Exception:  # noqa: BLE001  (a defect of ours: the provider must send the request again)
            _log.exception("callback failed", integration=self.provider.name)
            return [_UNAVAILABLE] * len(calls)

    def _render(
        self,
        callback: Callback,
        call: object,
        reply: LedgerReply,
        started: float,
        summed: list[Outcome] | None = None,
    ) -> Reply:
        """Render the ledger's reply. Count and log it, or add it to those that are counted and logged together."""
        answer, fault = reply or _UNKNOWN_PLAYER, ""
        if isinstance(answer, LedgerUnavailable):
            answer, fault = _UNAVAILABLE, str(answer)
        if summed is not None and isinstance(answer, Outcome):
            summed.append(answer)
        else:
            self._record(call, answer, started, fault)
        return self.provider.render(callback, answer)

    def _record_summed(self, summed: Sequence[Outcome], started: float) -> None:
        """Count several items of one request, and log them in one line.

        These are items that were rejected before the ledger was called, and repeats of an id in the same request:
        a request that was captured once can be made to hold any number of them.
        """
        integration, seconds = self.provider.name, perf_counter() - started
        by_code = Counter(outcome.code for outcome in summed)
        for code, number in by_code.items():
            self.metrics.outcomes(integration, code.value).inc(number)
        for field_name, number in Counter(name for each in summed for name in each.mismatched_fields).items():
            self.metrics.conflicts(integration, field_name).inc(number)
        self.metrics.seconds(integration).observe(seconds)
        level = "warning" if any(_LEVELS.get(code) for code in by_code) else "info"
        getattr(_log, level)(
            "items summed up",
            integration=integration,
            items=len(summed),
            **{code.value: number for code, number in by_code.items()},
            detail=summed[0].detail,
            duration_ms=round(seconds * 1_000, 2),
        )

    def _record(self, call: object, answer: Outcome | Balance, started: float, fault: str = "") -> None:
        """Count and log one answer: ids, outcome and duration, never a body or a signature."""
        name, seconds = self.provider.name, perf_counter() - started
        fields: dict[str, object] = {"integration": name, "outcome": BALANCE}
        if isinstance(call, Credit):
            fields["provider_tx_id"] = call.provider_tx_id
        level = "info"
        if isinstance(answer, Outcome):
            level = _LEVELS.get(answer.code, level)
            fields["outcome"] = answer.code.value
            details = ("differing", answer.mismatched_fields), ("detail", answer.detail or fault)
            fields |= {key: value for key, value in details if value}
            for field_name in answer.mismatched_fields:
                self.metrics.conflicts(name, field_name).inc()
            self.metrics.outcomes(name, answer.code.value).inc()
        else:
            self.metrics.balances(name).inc()
        self.metrics.seconds(name).observe(seconds)
        getattr(_log, level)("callback", **fields, duration_ms=round(seconds * 1_000, 2))


def _id_of(call: Credit | FindPlayer) -> str:
    return call.provider_tx_id if isinstance(call, Credit) else call.player_id
