"""Questions under way: who asks what is being asked already waits for that answer, and takes no place.

A signed request may be captured and sent again over any number of connections. Each copy is verified, then
they share one question to the ledger, so copies leave the places that there are to others. Copies that differ
in what the signature does not cover are questions of their own, which have a few places for each id.
"""

import asyncio
from collections.abc import Collection, Hashable, Sequence
from operator import attrgetter
from typing import Final

from gateway.ledger_client.client import LedgerClient
from gateway.places import SlotLimit
from shared.errors import LedgerUnavailable
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from shared.queries import Query
from shared.wire import Answer

LedgerReply = Answer | LedgerUnavailable
"""What the ledger told, or why it told nothing."""

_content: Final = attrgetter(*(name for name in Credit.__struct_fields__ if name != "details"))
"""What makes two credits one question: all but the details, which no answer depends on."""

_NOT_TOLD: Final = LedgerUnavailable("the same question failed")
_LATE: Final = LedgerUnavailable("no answer in time")
_TOO_MANY: Final = LedgerUnavailable("too many contents of one id are under way")


class _SharedCall:
    """A question that is under way, and its answer to come where somebody else waits for it."""

    __slots__ = ("answer", "question")

    def __init__(self, question: Credit | Query) -> None:
        self.question: Final = question
        self.answer: asyncio.Future[LedgerReply] | None = None

    def share(self) -> asyncio.Future[LedgerReply]:
        """Return the answer to come."""
        if self.answer is None:
            self.answer = asyncio.get_running_loop().create_future()
        return self.answer


class SingleFlight:
    """Questions to a ledger that are under way: as many as its client takes."""

    def __init__(self, ledger: LedgerClient) -> None:
        """Take the ledger to ask."""
        self._ledger: Final = ledger
        self._calls: Final[dict[Hashable, _SharedCall]] = {}
        """By what `_key` returns."""
        self._slots: Final = SlotLimit()
        """For other contents of an id that is under way, by id."""

    async def call_all(self, questions: Sequence[Credit | Query], deadline: float) -> Sequence[LedgerReply]:
        """Return the answers by `deadline`, a time of the running loop's clock, in seconds.

        A balance is asked anew once the question that is under way has its answer, which may be too old.
        One credit waits for a place where it needs one; those of a bulk are told to ask again.
        """
        for question in questions:
            if not isinstance(question, Credit) and (asked := self._calls.get(question)) is not None:
                await _wait([asked.share()], deadline)
        if len(questions) != 1 or not self._needs_slot(questions[0]):
            return await self._call_once(questions, deadline)
        try:
            async with self._slots.slot(_id_of(questions[0]), deadline):
                return await self._call_once(questions, deadline)
        except LedgerUnavailable as error:
            return [error]

    async def _call_once(self, questions: Sequence[Credit | Query], deadline: float) -> Sequence[LedgerReply]:
        """Ask what is not being asked, and wait for the rest."""
        mine: dict[Hashable, _SharedCall] = {}
        others: dict[int, asyncio.Future[LedgerReply] | None] = {}
        taken: list[asyncio.Semaphore] = []
        are_many = len(questions) > 1
        for number, question in enumerate(questions):
            key = self._key(question)
            if (asked := self._calls.get(key)) is not None:
                others[number] = asked.share()
            elif are_many and _is_content(key) and not await self._slots.try_acquire(_id_of(question), taken):
                others[number] = None
            else:
                self._calls[key] = mine[key] = _SharedCall(question)
        try:
            if not others:
                return await self._call_and_share(mine, questions, deadline)
            to_ask = [each.question for each in mine.values()]
            told = iter(await self._call_and_share(mine, to_ask, deadline) if mine else ())
        finally:
            for places in taken:
                places.release()
        await _wait([answer for answer in others.values() if answer is not None], deadline)
        return [_as_repeat(others[number]) if number in others else next(told) for number in range(len(questions))]

    async def _call_and_share(
        self, mine: dict[Hashable, _SharedCall], questions: Sequence[Credit | Query], deadline: float
    ) -> Sequence[LedgerReply]:
        """Ask, and tell all others who wait, also where it fails."""
        told: Sequence[LedgerReply] = ()
        try:
            told = await self._ledger.call_all(questions, deadline)
        finally:
            for number, (key, asked) in enumerate(mine.items()):
                del self._calls[key]
                if asked.answer is not None:
                    asked.answer.set_result(told[number] if number < len(told) else _NOT_TOLD)
        return told

    def _key(self, question: Credit | Query) -> Hashable:
        """Return under what a question is under way: a credit's id, or all of it where that is another's."""
        if not isinstance(question, Credit):
            return question
        key = question.provider_tx_id
        asked = self._calls.get(key)
        if asked is None or _content(asked.question) == (content := _content(question)):
            return key
        return content

    def _needs_slot(self, question: Credit | Query) -> bool:
        """Tell whether a question is not under way, but its id is, with other content."""
        key = self._key(question)
        return _is_content(key) and key not in self._calls


def _is_content(key: Hashable) -> bool:
    return isinstance(key, tuple)


def _id_of(question: Credit | Query) -> str:
    return question.provider_tx_id if isinstance(question, Credit) else ""


async def _wait(answers: Collection[asyncio.Future[LedgerReply]], deadline: float) -> None:
    """Wait for what others have asked until the deadline of who waits: theirs may be later."""
    if answers:
        await asyncio.wait(set(answers), timeout=deadline - asyncio.get_running_loop().time())


def _as_repeat(answer: asyncio.Future[LedgerReply] | None) -> LedgerReply:
    """Return what the ledger would have told who asked second, or why it told nothing."""
    if answer is None:
        return _TOO_MANY
    if not answer.done():
        return _LATE
    told = answer.result()
    if isinstance(told, Outcome) and told.code is OutcomeCode.POSTED:
        return Outcome(OutcomeCode.REPLAYED, told.receipt)
    return told
