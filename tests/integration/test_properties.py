"""Any wins in any order, workers that die between any two steps: what is paid and told is what must be.

A state machine drives real workers on a real database beside a model in dictionaries. The queues are in
memory; an example's players and ids are its own, so that all examples can share the books.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import msgspec
import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindPlayer
from shared.settings import LedgerSettings
from shared.wire import Answer, Batch, BatchReply, Question
from tests.support.crashes import UnluckyCache, UnluckyWorker
from tests.support.credits import WIN
from tests.support.fault_points import Fault
from tests.support.model import Identity, Model, without_transfer_id
from tests.support.model_books import read_books, write_holders
from tests.support.queues import Queues, batch_of, gateway_of
from tests.support.sendings import INTEGRATIONS, Copy, Sent, faults, sendings, wins
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.players import add_player, close_session
from worker.verify import verify

pytestmark = pytest.mark.any_server

THOROUGH: Final = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
EXAMPLES_PER_DATABASE: Final = 10_000 if THOROUGH else 500
STEPS_MAX: Final = 30 if THOROUGH else 5

OPENED: Final = {"anna": ("EUR", "JPY"), "ben": ("EUR", "BTC")}
"""The players at first, each with the currencies of their wallets; `nobody` is none of them."""


@dataclass
class Books:
    """One database for all examples, and the loop that it is used on."""

    runner: asyncio.Runner
    engine: AsyncEngine
    examples: Iterator[int] = field(default_factory=count)


class Casino(RuleBasedStateMachine):
    """Two workers on one ledger, each with a cache of its own, and what must come of it."""

    books: Books

    def __init__(self) -> None:
        super().__init__()
        self.example = f"-{next(self.books.examples)}"
        self.run = self.books.runner.run
        self.model, self.queues = Model(), Queues()
        self.caches = [UnluckyCache(), UnluckyCache()]
        self.workers = [UnluckyWorker(self.books.engine, cache, self.queues) for cache in self.caches]
        self.wins: list[Credit] = []
        self.batches_sent = 0
        self.answered: set[int] = set()
        self.transfer_ids: dict[Identity, str] = {}

    @initialize(wins=st.lists(wins, min_size=3, max_size=8, unique_by=lambda win: win.identity))
    def open(self, wins: list[Credit]) -> None:
        self.wins = wins
        for player_id, currencies in OPENED.items():
            for currency in currencies:
                self.model.add_player(player_id + self.example, currency)
        self.model.open_sessions = {(i, "session" + self.example) for i in INTEGRATIONS}
        self.run(write_holders(self.books.engine, self.model, "anna" + self.example))

    @rule(sent=sendings, by=st.integers(0, 1))
    def send(self, sent: list[Sent], by: int) -> None:
        self.queues.live += map(self._batch, sent)
        self._turn(by, None)

    @rule(sent=sendings, by=st.integers(0, 1), fault=faults)
    def send_and_fail(self, sent: list[Sent], by: int, fault: Fault) -> None:
        self.queues.live += map(self._batch, sent)
        self._turn(by, fault)

    @rule(by=st.integers(0, 1), fault=faults)
    def fail_again(self, by: int, fault: Fault) -> None:
        self._turn(by, fault)

    @rule(cache=st.integers(0, 1), every=st.integers(1, 3))
    def forget(self, cache: int, every: int) -> None:
        self.caches[cache].forget(every)

    @rule(currency=st.sampled_from(["KWD", "USDT"]), closed=st.sampled_from(INTEGRATIONS))
    def open_wallets_and_close_session(self, currency: str, closed: str) -> None:
        self.run(add_player(self.books.engine, "anna" + self.example, currency))
        self.model.add_player("anna" + self.example, currency)
        self.run(close_session(self.books.engine, closed, "session" + self.example))
        self.model.open_sessions.discard((closed, "session" + self.example))

    def teardown(self) -> None:
        """Let what is left be delivered, and hold the books against the model."""
        while self.queues.live or self.queues.late or any(worker.has_work for worker in self.workers):
            self._turn(0, None)
            self._turn(1, None)
        assert self.answered == set(range(self.batches_sent)), "a batch was lost"
        assert not self.queues.dead
        self._compare_books()

    def _turn(self, by: int, fault: Fault | None) -> None:
        """Let a worker take all there is, and hold what it told against the model."""
        worker, replies_before = self.workers[by], len(self.queues.replies)
        live, late = worker.take()
        lived = self.run(worker.work(fault))
        if not lived:
            self.workers[by] = UnluckyWorker(self.books.engine, self.caches[by], self.queues)
        replies = self.queues.replies[replies_before:]
        # Who died before its commit changed nothing, and answered nothing unless its cache knew everything.
        expected = self._expect(live, late) if worker.luck.committed or worker.luck.answered else {}
        self.answered |= expected.keys()
        if lived and worker.luck.struck:
            expected = {b.number: [Outcome(OutcomeCode.UNAVAILABLE)] * len(b) for b in live}
        self._assert_told(live, replies, expected)
        assert not lived or len(replies) == len(live)

    def _assert_told(
        self,
        live: Sequence[Batch],
        replies: Sequence[tuple[str, BatchReply]],
        expected: dict[int, list[Answer]],
    ) -> None:
        batches = {batch.number: batch for batch in live}
        for reply_to, reply in replies:
            batch = batches[reply.number]
            assert reply_to == gateway_of(batch)
            answers = [
                self._read(q, a) for q, a in zip([*batch.operations, *batch.queries], reply.answers, strict=True)
            ]
            assert answers == expected[reply.number]
        waiting = {batch.number for batch in (*self.queues.live, *self.queues.late)}
        told = [reply.number for _, reply in replies]
        assert len(told) == len(set(told)), "a batch was answered twice in one turn"
        assert batches.keys() - waiting <= set(told), "a batch was settled before its reply"

    def _expect(self, live: Sequence[Batch], late: Sequence[Batch]) -> dict[int, list[Answer]]:
        """Return what each batch is to be told: all credits are settled before a balance is looked up."""
        batches = (*live, *late)
        settled = {b.number: [self.model.post(q) for q in b.operations if isinstance(q, Credit)] for b in batches}
        found = {
            b.number: [self.model.holder(q.player_id) for q in b.queries if isinstance(q, FindPlayer)] for b in batches
        }
        return {number: [*settled[number], *found[number]] for number in settled}

    def _read(self, question: object, answer: Answer) -> Answer:
        """Return an answer as the model would give it: a win always has the same transfer id."""
        if isinstance(question, Credit) and isinstance(answer, Outcome) and answer.receipt is not None:
            transfer_id = answer.receipt.transfer_id
            assert self.transfer_ids.setdefault(question.identity, transfer_id) == transfer_id
            return without_transfer_id(answer)
        return answer

    def _batch(self, sent: Sent) -> Batch:
        credits_ = [
            msgspec.structs.replace(self.wins[copy.win % len(self.wins)], **copy.otherwise) for copy in sent.copies
        ]
        asked = [FindPlayer(player_id + self.example) for player_id in sent.asks_for]
        self.batches_sent += 1
        questions: list[Question] = [*map(self._own, credits_), *asked]
        return batch_of(self.batches_sent - 1, questions, expired=sent.expired)

    def _own(self, credit: Credit) -> Credit:
        """Return a credit with this example's own player, id and session."""
        return msgspec.structs.replace(
            credit,
            player_id=credit.player_id + self.example,
            provider_tx_id=credit.provider_tx_id + self.example,
            session_id=credit.session_id and credit.session_id + self.example,
        )

    def _compare_books(self) -> None:
        """Assert that balances, transfers with their flags, and conflicts are the model's."""
        read = self.run(read_books(self.books.engine, [name + self.example for name in OPENED]))
        assert read.balances == self.model.balances
        assert read.transfers.keys() == self.model.posted.keys()
        for identity, posted in self.model.posted.items():
            row = read.transfers[identity]
            assert self.transfer_ids.get(identity, str(row.id)) == str(row.id)
            assert row.after_round_closed == posted.after_round_closed
            for name in (*Credit.FINGERPRINT, "round_closed", "session_id"):
                assert getattr(row, name) == getattr(posted.credit, name)
        assert sorted(read.conflicts, key=repr) == sorted(self.model.conflicts, key=repr)


@pytest.fixture
def casino(database_url: str) -> Iterator[type[Casino]]:
    """The state machine on a database, whose books must hold in the end."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with asyncio.Runner() as runner:
        engine = create_engine(LedgerSettings(database_url=database_url), no_statement_timeout=True)
        runner.run(migrate(engine))
        try:
            yield type("Casino", (Casino,), {"books": Books(runner, engine)})
            audit = runner.run(verify(engine, Currencies()))
            assert audit.holds, audit.findings
        finally:
            runner.run(engine.dispose())


@pytest.mark.slow
def test_any_wins_and_crashes_leave_exactly_what_was_owed(casino: type[Casino]) -> None:
    examples = settings(max_examples=EXAMPLES_PER_DATABASE, stateful_step_count=STEPS_MAX)
    run_state_machine_as_test(casino, settings=examples)


@pytest.mark.parametrize("died", [True, False])
def test_crash_right_after_the_statement_that_posts_is_one_after_the_commit(
    casino: type[Casino],
    died: bool,  # noqa: FBT001  (a parameter)
) -> None:
    """On PostgreSQL new wins are posted by one statement, which nothing commits but itself."""
    state = casino()
    state.open(wins=[WIN])
    state.send_and_fail([Sent([Copy(0, {"round_id": "another"})])], by=0, fault=Fault("insert", died=died))
    state.send([Sent([Copy(0)])], by=0)
    state.teardown()


@pytest.mark.parametrize("step", ["cache.get", "ack"])
def test_late_repeat_is_settled_once_though_its_worker_dies(casino: type[Casino], step: str) -> None:
    """Nobody waits for it and the cache knows it: of its answer only the ack is to be seen."""
    state = casino()
    state.open(wins=[WIN])
    state.send([Sent([Copy(0)]), Sent([Copy(0)], expired=True)], by=0)
    state.fail_again(by=0, fault=Fault(step, died=True))
    state.teardown()
