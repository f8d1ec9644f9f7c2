"""Copies of a question that is under way share its answer; whatever differs is asked by itself."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import pytest

from gateway.callback import CallbackHandler
from gateway.load_shedding import ShedLog
from gateway.metrics import GatewayMetrics
from gateway.players import PlayerCache
from gateway.providers.base import Callback, Win
from gateway.providers.registry import build
from gateway.single_flight import LedgerReply, SingleFlight
from gateway.slots import SLOTS_PER_KEY
from gateway.time_slices import TimeSlices
from shared.errors import LedgerUnavailable
from shared.money import Currencies
from shared.operations import Credit, Wallet
from shared.outcome import Balance, Outcome, OutcomeCode, Receipt
from shared.queries import FindPlayer, FindSession
from shared.wire import Answer, Question
from tests.support.credits import OTHER_CONTENT, OTHER_DELIVERY, win
from tests.support.dispatchers import NEVER, until_idle
from tests.support.system import INTEGRATIONS
from tests.unit.test_overload import BusyLedger

RECEIPT: Final = Receipt("transfer-1", "EUR", 1050, 0, 1050, 0)
POSTED: Final = Outcome(OutcomeCode.POSTED, RECEIPT)
REPLAYED: Final = Outcome(OutcomeCode.REPLAYED, RECEIPT)
DIFFERENT: Final[dict[str, Any]] = {
    **OTHER_CONTENT,
    **OTHER_DELIVERY,
    "integration": "gpas",
    "provider_tx_id": "win-2",
    "wallet": Wallet.BONUS,
    "signed_digest": b"2",
}


class HeldLedger(BusyLedger):
    """A ledger that answers when a test says so."""

    def __init__(self) -> None:
        super().__init__(room_for=1)
        self.asked: list[asyncio.Future[list[Answer]]] = []
        self.questions: list[Question] = []

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        del deadline
        self.questions += questions
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


def ask(under_way: SingleFlight, *questions: Credit | FindPlayer) -> asyncio.Task[Sequence[LedgerReply]]:
    deadline = asyncio.get_running_loop().time() + NEVER
    return asyncio.create_task(under_way.call_all(questions, deadline))


async def test_copies_of_a_credit_are_one_question_and_posted_once() -> None:
    ledger = HeldLedger()
    under_way = SingleFlight(ledger)
    tasks = [ask(under_way, win(details={"request_id": str(number)})) for number in range(3)]
    await until_idle()
    assert len(ledger.questions) == 1
    ledger.asked[0].set_result([POSTED])
    assert await asyncio.gather(*tasks) == [[POSTED], [REPLAYED], [REPLAYED]]
    ask(under_way, win())
    await until_idle()
    assert len(ledger.questions) == 2  # what has its answer is under way no more


@pytest.mark.parametrize("field", [name for name in Credit.__struct_fields__ if name != "details"])
async def test_credit_that_differs_is_a_question_of_its_own(field: str) -> None:
    ledger = HeldLedger()
    under_way = SingleFlight(ledger)
    one, other = win(), win(**{field: DIFFERENT[field]})
    tasks = [ask(under_way, one), ask(under_way, other)]
    await until_idle()
    assert ledger.questions == [one, other]
    for task in tasks:
        task.cancel()


async def test_bulk_shares_what_is_under_way_and_asks_the_rest() -> None:
    ledger = HeldLedger()
    under_way = SingleFlight(ledger)
    single, bulk = ask(under_way, win("1")), ask(under_way, win("2"), win("1"), win("2"))
    await until_idle()
    assert ledger.questions == [win("1"), win("2")]
    ledger.asked[1].set_result([POSTED])
    ledger.asked[0].set_result([Outcome(OutcomeCode.CONFLICT)])
    assert await single == [Outcome(OutcomeCode.CONFLICT)]
    assert await bulk == [POSTED, Outcome(OutcomeCode.CONFLICT), REPLAYED]


async def test_balance_is_asked_anew_after_the_question_under_way() -> None:
    ledger, old, new = HeldLedger(), Balance("anna", "EUR", 0, 0), Balance("anna", "EUR", 1, 0)
    under_way = SingleFlight(ledger)
    first = ask(under_way, FindPlayer("anna"))
    await until_idle()
    later = [ask(under_way, FindPlayer("anna")) for _ in range(3)]
    await until_idle()
    assert len(ledger.asked) == 1
    ledger.asked[0].set_result([old])
    await until_idle()
    assert len(ledger.asked) == 2
    ledger.asked[1].set_result([new])
    assert await asyncio.gather(first, *later) == [[old], [new], [new], [new]]


@pytest.mark.parametrize("question", [win(), FindPlayer("anna")], ids=["credit", "balance"])
async def test_who_shares_an_answer_waits_no_longer_than_they_may(question: Credit | FindPlayer) -> None:
    under_way = SingleFlight(HeldLedger())
    first = ask(under_way, question)
    await until_idle()
    soon = asyncio.get_running_loop().time() + 0.01
    (told,) = await asyncio.wait_for(under_way.call_all([question], soon), 5)
    assert isinstance(told, LedgerUnavailable)
    assert not first.done()
    first.cancel()


async def test_other_contents_of_an_id_take_a_few_places_by_turns() -> None:
    """Whoever has one signed request may vary what its signature does not cover."""
    ledger = HeldLedger()
    under_way = SingleFlight(ledger)
    tasks = [ask(under_way, win(game_id=str(number))) for number in range(SLOTS_PER_KEY + 3)]
    await until_idle()
    assert len(ledger.questions) == 1 + SLOTS_PER_KEY
    soon = asyncio.get_running_loop().time() + 0.01
    (told,) = await under_way.call_all([win(game_id="late")], soon)
    assert isinstance(told, LedgerUnavailable)
    outcomes = [POSTED] + [Outcome(OutcomeCode.CONFLICT)] * (SLOTS_PER_KEY + 2)
    for number, outcome in enumerate(outcomes):
        ledger.asked[number].set_result([outcome])
        await until_idle()
    assert await asyncio.gather(*tasks) == [[outcome] for outcome in outcomes]


async def test_other_contents_of_an_id_in_a_bulk_take_a_few_places() -> None:
    ledger = HeldLedger()
    under_way = SingleFlight(ledger)
    outcomes: list[Answer] = [POSTED, *[Outcome(OutcomeCode.CONFLICT)] * SLOTS_PER_KEY]
    for _ in range(2):  # places are free again, once there is an answer
        bulk = ask(under_way, *(win(game_id=str(number)) for number in range(SLOTS_PER_KEY + 2)))
        await until_idle()
        ledger.asked[-1].set_result(outcomes)
        *told, beyond = await bulk
        assert told == outcomes
        assert isinstance(beyond, LedgerUnavailable)


async def test_one_body_asks_for_a_few_sessions_at_once_and_no_session_twice() -> None:
    """The query, which names the session, is not signed."""
    ledger = HeldLedger()
    holders, deadline = PlayerCache(ledger), asyncio.get_running_loop().time() + NEVER
    lookups = [FindSession("gpas", str(number)) for number in range(SLOTS_PER_KEY + 3)]
    tasks = [asyncio.create_task(holders.find(lookup, deadline, b"body")) for lookup in lookups]
    tasks += [asyncio.create_task(holders.find(lookups[0], deadline, b"other body")) for _ in range(3)]
    await until_idle()
    assert ledger.questions == lookups[:SLOTS_PER_KEY]
    for number in range(SLOTS_PER_KEY + 4):
        ledger.asked[number].set_result([None])
        await until_idle()
    assert await asyncio.gather(*tasks) == [None] * len(tasks)
    assert len(ledger.questions) == SLOTS_PER_KEY + 4


async def test_when_the_question_fails_all_who_wait_are_told() -> None:
    ledger = HeldLedger()
    under_way = SingleFlight(ledger)
    first, second = ask(under_way, win()), ask(under_way, win())
    await until_idle()
    first.cancel()
    (told,) = await asyncio.wait_for(second, 5)
    assert isinstance(told, LedgerUnavailable)


async def test_who_gives_up_waiting_ends_no_question() -> None:
    ledger = HeldLedger()
    under_way = SingleFlight(ledger)
    first, second = ask(under_way, win()), ask(under_way, win())
    await until_idle()
    second.cancel()
    await until_idle()
    ledger.asked[0].set_result([POSTED])
    assert await first == [POSTED]


async def test_copy_shares_only_with_its_own_good_signature() -> None:
    """Another spelling of the signature and a query that is not read make no other question."""
    ledger, metrics = HeldLedger(), GatewayMetrics(lambda: 0)
    provider = build("klas", INTEGRATIONS["klas"], Currencies())
    integration = CallbackHandler(provider, ledger, PlayerCache(ledger), metrics, ShedLog(metrics))
    signed: Callback = provider.sample_request(Win("1", "anna", "session-1"))
    signature = signed.headers["x-signature"]
    copies = [
        signed,
        signed._replace(headers={**signed.headers, "x-signature": signature.upper()}, query={"a": "1"}),
        signed._replace(headers={**signed.headers, "x-signature": signature[::-1]}),
    ]
    tasks = [asyncio.create_task(integration.handle(copy, TimeSlices(integration.scheduler))) for copy in copies]
    await until_idle()
    assert len(ledger.questions) == 1
    ledger.asked[0].set_result([POSTED])
    replies = await asyncio.gather(*tasks)
    assert replies[0] == replies[1]
    assert replies[2].body == provider.render(copies[2], Outcome(OutcomeCode.BAD_SIGNATURE)).body != replies[0].body
