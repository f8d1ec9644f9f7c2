"""Any wins in any order, workers that die between any two steps: what is paid and told is what must be.

A state machine drives real workers on a real database beside a model in dictionaries. The queues are in
memory; an example's players and ids are its own, so that all examples can share the books.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import msgspec
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import Table, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from shared.credit import FINGERPRINT, Credit, Kind, Wallet
from shared.money import Currencies
from shared.outcome import Outcome, Result
from shared.settings import LedgerSettings
from shared.wire import Answer, Batch, FindPlayer, Question
from tests.crashes import (
    DATABASE_STEPS,
    STEPS,
    Fault,
    Queues,
    UnluckyCache,
    UnluckyWorker,
    batch_of,
    gateway_of,
)
from tests.model import BALANCE_MAX, Identity, Model, without_transfer_id
from worker.database import create_engine, migrate
from worker.holders import add_player, close_session
from worker.schema import conflicts, players, sessions, transfers, wallets
from worker.verify import verify

THOROUGH: Final = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
EXAMPLES_PER_DATABASE: Final = 10_000 if THOROUGH else 500
STEPS_MAX: Final = 30 if THOROUGH else 6

OPENED: Final = {"anna": ("EUR", "JPY"), "ben": ("EUR", "BTC")}
"""The players at first, each with the currencies of their wallets; `nobody` is none of them."""

INTEGRATIONS: Final = ("klas", "gpas")
CONTENT: Final[dict[str, st.SearchStrategy[Any]]] = {
    "player_id": st.sampled_from(["anna", "anna", "anna", "anna", "ben", "ben", "nobody"]),
    "currency": st.sampled_from(["EUR", "EUR", "EUR", "EUR", "JPY", "KWD"]),
    "amount_minor": st.sampled_from([1, 2, 0, 1050, 1051, BALANCE_MAX // 2, BALANCE_MAX]),
    "kind": st.sampled_from(Kind),
    "round_id": st.sampled_from(["round-1", "round-2", None]),
    "game_id": st.sampled_from([None, "game-1"]),
    "bet_id": st.sampled_from([None, "bet-1"]),
}
"""What a repeat must have in common with the first."""

DELIVERY: Final[dict[str, st.SearchStrategy[Any]]] = {
    "wallet": st.sampled_from(Wallet),
    "round_closed": st.booleans(),
    "session_id": st.sampled_from(["session", None, "unknown"]),
    "open_session_only": st.sampled_from([False, False, False, False, True]),
    "details": st.sampled_from([{}, {"request_id": "2"}]),
}
"""What a repeat may have otherwise."""


class Copy(msgspec.Struct, frozen=True):
    """A win of the example, by its number, as it is sent this time."""

    win: int
    otherwise: dict[str, Any] = {}


@dataclass(frozen=True)
class Sent:
    """A batch that a gateway sends."""

    copies: list[Copy]
    asks_for: tuple[str, ...] = ()
    """Players whose balance is asked for as well."""

    expired: bool = False


def one_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return strategies for one field, as a dictionary."""
    return st.one_of([st.fixed_dictionaries({name: values}) for name, values in fields.items()])


wins = st.builds(
    Credit,
    integration=st.sampled_from(INTEGRATIONS),
    provider_tx_id=st.sampled_from(["1", "2", "3", "4", "5", "6"]),
    **CONTENT,
    **DELIVERY,
)
otherwise = st.one_of(st.just({}), st.just({}), one_of(DELIVERY), one_of(CONTENT))
batches = st.builds(
    Sent,
    copies=st.lists(st.builds(Copy, st.integers(0, 7), otherwise), min_size=1, max_size=6),
    asks_for=st.sampled_from([(), (), (), ("anna",), ("ben", "nobody")]),
    expired=st.sampled_from([False, False, False, True]),
)
sendings = st.lists(batches, min_size=1, max_size=3)
faults = st.builds(Fault, st.sampled_from(STEPS), died=st.just(value=True)) | st.builds(
    Fault, st.sampled_from(DATABASE_STEPS), died=st.just(value=False)
)


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
        self.run(self._open())
        self.model.open_sessions = {(i, "session" + self.example) for i in INTEGRATIONS}

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
        self.run(self._compare_books())

    def _turn(self, by: int, fault: Fault | None) -> None:
        worker, replies_before = self.workers[by], len(self.queues.replies)
        live, late = worker.take()
        lived = self.run(worker.work(fault))
        if not lived:
            self.workers[by] = UnluckyWorker(self.books.engine, self.caches[by], self.queues)
        outage = lived and worker.luck.struck
        replies = self.queues.replies[replies_before:]
        expected: dict[int, list[Answer]] = {}
        # Whoever died before its commit has changed nothing, unless it could answer from its cache alone.
        if worker.luck.committed or ((lived or replies) and not outage):
            expected = self._expect(live, late)
            self.answered |= expected.keys()
        if outage:
            expected = {b.number: [Outcome(Result.UNAVAILABLE)] * len(b.questions) for b in live}
        by_number = {batch.number: batch for batch in live}
        told = [reply.number for _, reply in replies]
        if lived:
            assert sorted(told) == sorted(by_number)
        waiting = {batch.number for batch in (*self.queues.live, *self.queues.late)}
        assert by_number.keys() - waiting <= set(told), "a batch was settled before its reply"
        for reply_to, reply in replies:
            batch = by_number[reply.number]
            assert reply_to == gateway_of(batch)
            answers = [self._read(q, a) for q, a in zip(batch.questions, reply.answers, strict=True)]
            assert answers == expected[reply.number]

    def _expect(self, live: Sequence[Batch], late: Sequence[Batch]) -> dict[int, list[Answer]]:
        """Return what each batch is to be told: all credits are settled before a balance is looked up."""
        settled = {b.number: [self.model.post(q) for q in b.questions if isinstance(q, Credit)] for b in live}
        for batch in late:
            settled[batch.number] = [self.model.post(q) for q in batch.questions if isinstance(q, Credit)]
        return {
            b.number: [
                *settled[b.number],
                *(self.model.holder(q.player_id) for q in b.questions if isinstance(q, FindPlayer)),
            ]
            for b in (*live, *late)
        }

    def _read(self, question: Question, answer: Answer) -> Answer:
        """Return an answer as the model would give it: a win always has the same transfer id."""
        if isinstance(question, Credit) and isinstance(answer, Outcome) and answer.receipt is not None:
            transfer_id = answer.receipt.transfer_id
            assert self.transfer_ids.setdefault(question.identity, transfer_id) == transfer_id
            return without_transfer_id(answer)
        return answer

    def _batch(self, sent: Sent) -> Batch:
        credits_ = [
            msgspec.structs.replace(self.wins[copy.win % len(self.wins)], **copy.otherwise)
            for copy in sent.copies
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

    async def _open(self) -> None:
        now = datetime.now(UTC)
        names = {player_id: player_id + self.example for player_id in OPENED}
        rows: dict[Table, list[dict[str, Any]]] = {
            players: [
                {"id": names[p], "currency": currencies[0], "created_at": now}
                for p, currencies in OPENED.items()
            ],
            wallets: [
                {
                    "id": uuid7(),
                    "player_id": names[p],
                    "currency": currency,
                    "kind": kind,
                    "balance_minor": 0,
                    "version": 0,
                }
                for p, currencies in OPENED.items()
                for currency in currencies
                for kind in Wallet
            ],
            sessions: [
                {
                    "integration": integration,
                    "id": "session" + self.example,
                    "player_id": names["anna"],
                    "currency": "EUR",
                    "opened_at": now,
                }
                for integration in INTEGRATIONS
            ],
        }
        async with self.books.engine.begin() as connection:
            for table, values in rows.items():
                await connection.execute(insert(table), values)

    async def _compare_books(self) -> None:
        """Assert that balances, transfers with their flags, and conflicts are the model's."""
        own = [player_id + self.example for player_id in OPENED]
        async with self.books.engine.connect() as connection:
            found = await connection.execute(select(wallets).where(wallets.c.player_id.in_(own)))
            assert self.model.balances == {
                (row.player_id, row.currency, Wallet(row.kind)): row.balance_minor for row in found
            }
            found = await connection.execute(select(transfers).where(transfers.c.player_id.in_(own)))
            rows = {(row.integration, row.provider_tx_id): row for row in found}
            found = await connection.execute(
                select(conflicts).where(conflicts.c.transfer_id.in_([row.id for row in rows.values()]))
            )
            offers = [(row.transfer_id, row.offered) for row in found]
        assert rows.keys() == self.model.posted.keys()
        for identity, posted in self.model.posted.items():
            row = rows[identity]
            assert self.transfer_ids.get(identity, str(row.id)) == str(row.id)
            assert row.after_round_closed == posted.after_round_closed
            for name in (*FINGERPRINT, "round_closed", "session_id"):
                assert getattr(row, name) == getattr(posted.credit, name)
        identities = {row.id: identity for identity, row in rows.items()}
        assert self.model.conflicts == {
            (identities[transfer_id], frozenset(msgspec.json.decode(offered).items()))
            for transfer_id, offered in offers
        }
        assert len(offers) == len(self.model.conflicts)


def test_any_wins_and_crashes_leave_exactly_what_was_owed(database_url: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with asyncio.Runner() as runner:
        engine = create_engine(LedgerSettings(database_url=database_url))
        runner.run(migrate(engine))
        try:
            books = Books(runner, engine)
            machine = type("Casino", (Casino,), {"books": books})
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES_PER_DATABASE, stateful_step_count=STEPS_MAX, deadline=None
                ),
            )
            audit = runner.run(verify(engine, Currencies()))
            assert audit.holds, audit.findings
        finally:
            runner.run(engine.dispose())
