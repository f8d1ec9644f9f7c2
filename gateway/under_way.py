"""Questions under way: who asks what is being asked already waits for that answer, and takes no place.

A signed request may be captured and sent again over any number of connections. Each copy is verified, then
they share one question to the ledger, so copies leave the places that there are to others.
"""

import asyncio
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Final

from gateway.ledger_client.contract import LedgerClient
from shared.credit import Credit
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome, Result
from shared.wire import Answer, FindPlayer

Told = Answer | LedgerUnavailable
"""What the ledger told, or why it told nothing."""

_content: Final = attrgetter(*(name for name in Credit.__struct_fields__ if name != "details"))
"""What makes two credits one question: all but the details, which no answer depends on."""

_NOT_TOLD: Final = LedgerUnavailable("the same question failed")


class _Asked:
    """A question that is under way, and its answer to come where somebody else waits for it."""

    __slots__ = ("answer", "question")

    def __init__(self, question: Credit | FindPlayer) -> None:
        self.question: Final = question
        self.answer: asyncio.Future[Told] | None = None

    def share(self) -> asyncio.Future[Told]:
        """Return the answer to come."""
        if self.answer is None:
            self.answer = asyncio.get_running_loop().create_future()
        return self.answer


class UnderWay:
    """One integration's questions that are under way: as many as the ledger client takes."""

    def __init__(self, ledger: LedgerClient) -> None:
        """Take the ledger to ask."""
        self._ledger: Final = ledger
        self._asked: Final[dict[Hashable, _Asked]] = {}
        """By what `_key` returns."""

    async def ask_all(self, questions: Sequence[Credit | FindPlayer], deadline: float) -> Sequence[Told]:
        """Return the answers by `deadline`, a time of the running loop's clock, in seconds.

        A balance is asked anew once the question that is under way has its answer, which may be too old.
        """
        for question in questions:
            if isinstance(question, FindPlayer) and (asked := self._asked.get(question)) is not None:
                await asyncio.shield(asked.share())
        mine: dict[Hashable, _Asked] = {}
        others: dict[int, asyncio.Future[Told]] = {}
        for number, question in enumerate(questions):
            key = self._key(question)
            if (asked := self._asked.get(key)) is None:
                self._asked[key] = mine[key] = _Asked(question)
            else:
                others[number] = asked.share()
        if not others:
            return await self._ask(mine, questions, deadline)
        told = iter(
            await self._ask(mine, [each.question for each in mine.values()], deadline) if mine else ()
        )
        return [
            _again(await asyncio.shield(others[number])) if number in others else next(told)
            for number in range(len(questions))
        ]

    async def _ask(
        self, mine: dict[Hashable, _Asked], questions: Sequence[Credit | FindPlayer], deadline: float
    ) -> Sequence[Told]:
        """Ask, and tell all others who wait, also where it fails."""
        told: Sequence[Told] = ()
        try:
            told = await self._ledger.ask_all(questions, deadline)
        finally:
            for number, (key, asked) in enumerate(mine.items()):
                del self._asked[key]
                if asked.answer is not None:
                    asked.answer.set_result(told[number] if number < len(told) else _NOT_TOLD)
        return told

    def _key(self, question: Credit | FindPlayer) -> Hashable:
        """Return under what a question is under way: a credit's id, or all of it where that is another's."""
        if isinstance(question, FindPlayer):
            return question
        key = question.provider_tx_id
        asked = self._asked.get(key)
        if asked is None or _content(asked.question) == (content := _content(question)):
            return key
        return content


def _again(told: Told) -> Told:
    """Return what the ledger would have told who asked second."""
    if isinstance(told, Outcome) and told.result is Result.POSTED:
        return Outcome(Result.REPLAYED, told.receipt)
    return told
