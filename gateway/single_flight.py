"""Single flight: copies of a call that is under way wait for its reply instead of calling the ledger again.

A signed request may be captured and sent again over any number of connections. Each copy is verified, then all
share one call to the ledger, so copies leave the ledger's capacity to others. Copies that differ in what the
signature does not cover are calls of their own, with a few slots for each id.
"""

import asyncio
from collections.abc import Collection, Hashable, Sequence
from operator import attrgetter
from typing import Final

from gateway.ledger_client.client import LedgerClient
from gateway.slots import SlotLimit
from shared.errors import LedgerUnavailable
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from shared.queries import Query
from shared.wire import Answer

LedgerReply = Answer | LedgerUnavailable
"""The ledger's reply to a call, or why there is none."""

_content: Final = attrgetter(*(name for name in Credit.__struct_fields__ if name != "details"))
"""The fields in which two credits must be equal to share a call: all but the details, which no reply depends on."""

_CALL_FAILED: Final = LedgerUnavailable("the same question failed")
_LATE: Final = LedgerUnavailable("no answer in time")
_NO_SLOT: Final = LedgerUnavailable("too many contents of one id are under way")


class _SharedCall:
    """A call that is under way, and its future reply if somebody else waits for that."""

    __slots__ = ("question", "reply")

    def __init__(self, question: Credit | Query) -> None:
        self.question: Final = question
        self.reply: asyncio.Future[LedgerReply] | None = None

    def join(self) -> asyncio.Future[LedgerReply]:
        """Return the future reply."""
        if self.reply is None:
            self.reply = asyncio.get_running_loop().create_future()
        return self.reply


class SingleFlight:
    """Calls a ledger, with one call under way for all equal ones."""

    def __init__(self, ledger: LedgerClient) -> None:
        """Take the ledger's client, which bounds how many calls there are."""
        self._ledger: Final = ledger
        self._calls: Final[dict[Hashable, _SharedCall]] = {}
        """The calls under way, by the key that `_key` returns."""
        self._slots: Final = SlotLimit()
        """Slots by id, for other contents of an id that is under way."""

    async def call_all(self, questions: Sequence[Credit | Query], deadline: float) -> Sequence[LedgerReply]:
        """Return the replies by `deadline`, a time of the running loop's clock, in seconds.

        A balance is looked up anew after the lookup that is under way, whose reply may be out of date. A single
        credit that needs a slot waits for it; in a bulk request, one for which none is free is unavailable.
        """
        for question in questions:
            if not isinstance(question, Credit) and (call := self._calls.get(question)) is not None:
                await _wait([call.join()], deadline)
        if len(questions) != 1 or not self._needs_slot(questions[0]):
            return await self._call_or_join(questions, deadline)
        try:
            async with self._slots.slot(_id_of(questions[0]), deadline):
                return await self._call_or_join(questions, deadline)
        except LedgerUnavailable as error:
            return [error]

    async def _call_or_join(self, questions: Sequence[Credit | Query], deadline: float) -> Sequence[LedgerReply]:
        """Make the calls that are not under way, join those that are, and return all replies in order."""
        own: dict[Hashable, _SharedCall] = {}
        joined: dict[int, asyncio.Future[LedgerReply] | None] = {}
        slots: list[asyncio.Semaphore] = []
        is_bulk = len(questions) > 1
        for number, question in enumerate(questions):
            key = self._key(question)
            if (call := self._calls.get(key)) is not None:
                joined[number] = call.join()
                continue
            if is_bulk and _is_content(key):
                slot = await self._slots.try_acquire(_id_of(question))
                if slot is None:
                    joined[number] = None
                    continue
                slots.append(slot)
            self._calls[key] = own[key] = _SharedCall(question)
        try:
            if not joined:
                return await self._call(own, questions, deadline)
            replies = iter(await self._call(own, [call.question for call in own.values()], deadline) if own else ())
        finally:
            for slot in slots:
                slot.release()
        await _wait([reply for reply in joined.values() if reply is not None], deadline)
        numbers = range(len(questions))
        return [_joined_reply(joined[number]) if number in joined else next(replies) for number in numbers]

    async def _call(
        self, calls: dict[Hashable, _SharedCall], questions: Sequence[Credit | Query], deadline: float
    ) -> Sequence[LedgerReply]:
        """Call the ledger, and give the replies to all who have joined; also when the call fails or is cancelled."""
        replies: Sequence[LedgerReply] = ()
        try:
            replies = await self._ledger.call_all(questions, deadline)
        finally:
            for number, (key, call) in enumerate(calls.items()):
                del self._calls[key]
                if call.reply is not None:
                    call.reply.set_result(replies[number] if number < len(replies) else _CALL_FAILED)
        return replies

    def _key(self, question: Credit | Query) -> Hashable:
        """Return the key of a call: a credit's id, or its content while the id is under way with another content."""
        if not isinstance(question, Credit):
            return question
        key = question.provider_tx_id
        call = self._calls.get(key)
        if call is None or _content(call.question) == (content := _content(question)):
            return key
        return content

    def _needs_slot(self, question: Credit | Query) -> bool:
        """Tell whether a credit's id is under way with other content, and this content is not."""
        key = self._key(question)
        return _is_content(key) and key not in self._calls


def _is_content(key: Hashable) -> bool:
    return isinstance(key, tuple)


def _id_of(question: Credit | Query) -> str:
    return question.provider_tx_id if isinstance(question, Credit) else ""


async def _wait(replies: Collection[asyncio.Future[LedgerReply]], deadline: float) -> None:
    """Wait for replies to others' calls, but no longer than the caller's own deadline, which may be sooner."""
    if replies:
        await asyncio.wait(set(replies), timeout=deadline - asyncio.get_running_loop().time())


def _joined_reply(reply: asyncio.Future[LedgerReply] | None) -> LedgerReply:
    """Return the reply that the ledger would give to a repeat of the call, or why there is none."""
    if reply is None:
        return _NO_SLOT
    if not reply.done():
        return _LATE
    first = reply.result()
    if isinstance(first, Outcome) and first.code is OutcomeCode.POSTED:
        return Outcome(OutcomeCode.REPLAYED, first.receipt)
    return first
