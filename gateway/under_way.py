"""Questions under way: who asks what is being asked already waits for that answer, and takes no place.

A signed request may be captured and sent again over any number of connections. Each copy is verified, then
they share one question to the ledger, so copies leave the places that there are to others.
"""

import asyncio
from collections.abc import Hashable, Sequence
from typing import Final

from gateway.ledger_client.contract import LedgerClient
from shared.credit import Credit
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome, Result
from shared.wire import Answer, FindPlayer

Told = Answer | LedgerUnavailable
"""What the ledger told, or why it told nothing."""

_NOT_TOLD: Final = LedgerUnavailable("the same question failed")


class UnderWay:
    """One integration's questions that are under way: as many as the ledger client takes."""

    def __init__(self, ledger: LedgerClient) -> None:
        """Take the ledger to ask."""
        self._ledger: Final = ledger
        self._shared: Final[dict[Hashable, asyncio.Future[Told] | None]] = {}
        """The answers to come; a future only where somebody else waits for one, as hardly ever."""

    async def ask_all(self, questions: Sequence[Credit | FindPlayer], deadline: float) -> list[Told]:
        """Return the answers by `deadline`, a time of the running loop's clock, in seconds.

        A balance is asked anew once the question that is under way has its answer, which may be too old.
        """
        for question in questions:
            if isinstance(question, FindPlayer) and question.player_id in self._shared:
                await asyncio.shield(self._share(question.player_id))
        mine: dict[Hashable, Credit | FindPlayer] = {}
        others: list[asyncio.Future[Told] | None] = []
        for question in questions:
            key = _key(question)
            if key in self._shared:
                others.append(self._share(key))
            else:
                self._shared[key], mine[key] = None, question
                others.append(None)
        told = iter(await self._ask(mine, deadline) if mine else ())
        return [next(told) if other is None else _again(await asyncio.shield(other)) for other in others]

    def _share(self, key: Hashable) -> asyncio.Future[Told]:
        """Return the answer to come of a question that is under way."""
        if (answer := self._shared[key]) is None:
            answer = self._shared[key] = asyncio.get_running_loop().create_future()
        return answer

    async def _ask(self, mine: dict[Hashable, Credit | FindPlayer], deadline: float) -> Sequence[Told]:
        """Ask, and tell all others who wait, also where it fails."""
        told: Sequence[Told] = ()
        try:
            told = await self._ledger.ask_all(list(mine.values()), deadline)
        finally:
            for number, key in enumerate(mine):
                if (other := self._shared.pop(key)) is not None:
                    other.set_result(told[number] if number < len(told) else _NOT_TOLD)
        return told


def _key(question: Credit | FindPlayer) -> Hashable:
    """Return what makes two questions one: all but the details, which no answer depends on."""
    if isinstance(question, FindPlayer):
        return question.player_id
    return (
        question.integration,
        question.provider_tx_id,
        question.player_id,
        question.currency,
        question.amount_minor,
        question.kind,
        question.wallet,
        question.round_id,
        question.round_closed,
        question.game_id,
        question.bet_id,
        question.session_id,
        question.open_session_only,
        question.signed_digest,
    )


def _again(told: Told) -> Told:
    """Return what the ledger would have told who asked second."""
    if isinstance(told, Outcome) and told.result is Result.POSTED:
        return Outcome(Result.REPLAYED, told.receipt)
    return told
