"""One callback from bytes to reply.

    read -> split -> authenticate -> parse -> (whose) -> normalize -> ask the ledger -> render -> join

Whatever goes wrong on the way has a `Result`, and every result has the provider's own words.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import structlog

from gateway.ledger_client.client import LedgerClient
from gateway.metrics import GatewayMetrics
from gateway.pace import Pace, Turns, is_short
from gateway.players import PlayerCache
from gateway.providers.base import Callback, CallbackRejected, Provider, Reply
from gateway.shed_requests import ShedLog
from gateway.single_flight import LedgerReply, SingleFlight
from shared.errors import LedgerUnavailable
from shared.operations import Credit
from shared.outcome import Holder, Outcome, OutcomeCode
from shared.queries import FindPlayer, FindSession

BALANCE = "told"
"""How a balance that was told is counted; a credit is counted by its result."""

REFUSED_ITEMS_MAX: Final = 100
"""So many items of a bulk request are read if none of them is to be paid; the others are to be sent again."""

_log = structlog.get_logger()
_LEVELS = {
    OutcomeCode.CONFLICT: "error",
    OutcomeCode.UNPOSTABLE: "error",
    OutcomeCode.UNAVAILABLE: "warning",
    OutcomeCode.BAD_SIGNATURE: "warning",
    OutcomeCode.UNKNOWN_CALLER: "warning",
}


_ASKED: Final = (Credit, FindPlayer)
"""What is asked of the ledger; anything else is an answer already."""

_UNAVAILABLE = Outcome(OutcomeCode.UNAVAILABLE)
_UNKNOWN_PLAYER = Outcome(OutcomeCode.UNKNOWN_PLAYER)


@dataclass(frozen=True, slots=True)
class CallbackHandler:
    """One integration at work: its provider, and the ledger that it calls."""

    provider: Provider[Any, Any]
    ledger: LedgerClient
    players: PlayerCache
    metrics: GatewayMetrics
    shed_log: ShedLog
    turns: Turns = field(default_factory=Turns)
    """Shared by all integrations of a process."""

    single_flight: SingleFlight = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no question under way."""
        object.__setattr__(self, "single_flight", SingleFlight(self.ledger))

    async def handle(self, callback: Callback, pace: Pace) -> Reply:
        """Answer one HTTP request within the provider's window; its pace tells whether a signature was good.

        Of several items, what becomes of one is nothing to the others.
        """
        began = perf_counter()
        deadline = asyncio.get_running_loop().time() + self.provider.settings.reply_within_seconds
        if not is_short(callback.body):
            await pace.rest()
        is_overloaded = self.ledger.is_overloaded()
        try:
            items = self.provider.split(callback)
        except CallbackRejected as refused:
            return self._refuse(callback, refused.outcome, began)
        if is_overloaded:
            replies = await self._shed_items(items, pace)
        elif len(items) == 1:
            replies = [await self._handle_one(items[0], deadline, pace, began)]
        else:
            replies = await self._handle_many(items, deadline, pace, began)
        return self.provider.join(callback, replies)

    async def _handle_one(self, item: Callback, deadline: float, pace: Pace, began: float) -> Reply:
        """Answer the only item of a request."""
        question = await self._prepare(item, deadline, pace)
        told = (await self._call_ledger([question], deadline))[0] if isinstance(question, _ASKED) else question
        return self._render(item, question, told, began)

    async def _handle_many(self, items: Sequence[Callback], deadline: float, pace: Pace, began: float) -> list[Reply]:
        """Answer each item of a bulk request, in short turns."""
        questions: list[Credit | FindPlayer | LedgerReply] = []
        refused = 0
        for item in items:
            if questions:  # the first shows in the turn that it was read in whether it is signed
                await pace.rest()
            if refused == REFUSED_ITEMS_MAX == len(questions):
                questions += [_UNAVAILABLE] * (len(items) - len(questions))
                break
            questions.append(await self._prepare(item, deadline, pace))
            if isinstance(questions[-1], Outcome):
                refused += 1
        asked = [question for question in questions if isinstance(question, _ASKED)]
        answers = iter(await self._call_ledger(asked, deadline) if asked else ())
        summed: list[Outcome] = []
        logged = set[str]()
        replies = []
        for item, question in zip(items, questions, strict=True):
            await pace.rest()
            if isinstance(question, _ASKED):
                is_another = _id_of(question) not in logged
                logged.add(_id_of(question))
                told = next(answers)
            else:
                is_another, told = False, question
            replies.append(self._render(item, question, told, began, None if is_another else summed))
        if summed:
            self._record_summed(summed, began)
        return replies

    async def _shed_items(self, items: Sequence[Callback], pace: Pace) -> list[Reply]:
        """Say 'ask again' to each item."""
        self.shed_log.add(self.provider.name, len(items))
        replies = []
        for item in items:
            if len(items) > 1:
                await pace.rest()
            replies.append(self.provider.render(item, _UNAVAILABLE))
        return replies

    def shed(self, callback: Callback) -> Reply:
        """Say 'ask again' to what is short and neither authenticated nor read: a refusal has to be cheap."""
        try:
            items = self.provider.split(callback)
        except CallbackRejected as refused:
            return self._refuse(callback, refused.outcome, perf_counter())
        self.shed_log.add(self.provider.name, len(items))
        return self.provider.join(callback, [self.provider.render(item, _UNAVAILABLE) for item in items])

    def refuse(self, callback: Callback, detail: str) -> Reply:
        """Answer a request that is none, such as one with too large a body."""
        return self._refuse(callback, Outcome(OutcomeCode.MALFORMED, detail=detail), perf_counter())

    def _refuse(self, callback: Callback, outcome: Outcome, began: float) -> Reply:
        self._record(None, outcome, began)
        return self.provider.render(callback, outcome)

    async def _prepare(self, callback: Callback, deadline: float, pace: Pace) -> Credit | FindPlayer | LedgerReply:
        """Return what to ask the ledger, or the answer where there is nothing to ask."""
        try:
            return await self._normalized(callback, deadline, pace)
        except CallbackRejected as refused:
            return refused.outcome
        except LedgerUnavailable as error:
            return error
        except Exception:  # noqa: BLE001  (a fault of ours: the provider must ask again)
            _log.exception("callback failed", integration=self.provider.name)
            return _UNAVAILABLE

    async def _normalized(self, callback: Callback, deadline: float, pace: Pace) -> Credit | FindPlayer:
        """Turn a callback into a question to the ledger. Raises Refused and LedgerUnavailable."""
        provider = self.provider
        provider.authenticate(callback)
        pace.is_signed = True
        message = provider.parse(callback)
        lookup, holder = provider.lookup(message), None
        if lookup is not None:
            holder = await self.players.find(lookup, deadline, callback.body)
            if holder is None:
                unknown_session = isinstance(lookup, FindSession)
                raise CallbackRejected(OutcomeCode.UNKNOWN_SESSION if unknown_session else OutcomeCode.UNKNOWN_PLAYER)
        return provider.normalize(message, holder)

    async def _call_ledger(self, questions: Sequence[Credit | FindPlayer], deadline: float) -> Sequence[LedgerReply]:
        """Return the ledger's answers."""
        try:
            return await self.single_flight.call_all(questions, deadline)
        except Exception:  # noqa: BLE001  (see above)
            _log.exception("callback failed", integration=self.provider.name)
            return [_UNAVAILABLE] * len(questions)

    def _render(
        self,
        callback: Callback,
        question: object,
        told: LedgerReply,
        began: float,
        summed: list[Outcome] | None = None,
    ) -> Reply:
        """Say one answer, and count and log it, or add it to those that are counted and logged together."""
        answer, fault = told or _UNKNOWN_PLAYER, ""
        if isinstance(answer, LedgerUnavailable):
            answer, fault = _UNAVAILABLE, str(answer)
        if summed is not None and isinstance(answer, Outcome):
            summed.append(answer)
        else:
            self._record(question, answer, began, fault)
        return self.provider.render(callback, answer)

    def _record_summed(self, summed: Sequence[Outcome], began: float) -> None:
        """Count items of one request, and log them in one line: what nobody asked for, and copies of others.

        A request that was captured once can be made to hold any number of them.
        """
        integration, seconds = self.provider.name, perf_counter() - began
        counts = Counter(outcome.code for outcome in summed)
        for result, number in counts.items():
            self.metrics.outcomes(integration, result.value).inc(number)
        for differing, number in Counter(name for each in summed for name in each.mismatched_fields).items():
            self.metrics.conflicts(integration, differing).inc(number)
        self.metrics.seconds(integration).observe(seconds)
        level = "warning" if any(_LEVELS.get(result) for result in counts) else "info"
        by_result = {result.value: number for result, number in counts.items()}
        getattr(_log, level)(
            "items summed up",
            integration=integration,
            items=len(summed),
            **by_result,
            detail=summed[0].detail,
            duration_ms=round(seconds * 1_000, 2),
        )

    def _record(self, question: object, answer: Outcome | Holder, began: float, fault: str = "") -> None:
        """Count and log one answer: ids, outcome and duration, never a body or a signature."""
        name, seconds = self.provider.name, perf_counter() - began
        fields: dict[str, object] = {"integration": name, "outcome": BALANCE}
        if isinstance(question, Credit):
            fields["provider_tx_id"] = question.provider_tx_id
        level = "info"
        if isinstance(answer, Outcome):
            level = _LEVELS.get(answer.code, level)
            fields["outcome"] = answer.code.value
            fields |= {
                k: v for k, v in (("differing", answer.mismatched_fields), ("detail", answer.detail or fault)) if v
            }
            for differing in answer.mismatched_fields:
                self.metrics.conflicts(name, differing).inc()
        self.metrics.outcomes(name, fields["outcome"]).inc()
        self.metrics.seconds(name).observe(seconds)
        getattr(_log, level)("callback", **fields, duration_ms=round(seconds * 1_000, 2))


def _id_of(question: Credit | FindPlayer) -> str:
    return question.provider_tx_id if isinstance(question, Credit) else question.player_id
