"""The ledger on real databases: each win is paid once, whoever sends it, however often."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerUnavailable
from shared.money import MINOR_MAX
from shared.operations import Credit, Kind, Wallet
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindSession
from tests.support.credits import OTHER_CONTENT, WIN, win
from tests.support.ledgers import add_players, assert_books_hold, balance_minor, post, receipt, results
from worker.database.migrate import require_migrated
from worker.database.schema import CONFLICTS_MAX
from worker.ledger.cache.outcomes import MemoryCache
from worker.ledger.service import LedgerService
from worker.ledger.transaction import Ledger
from worker.players import add_player, close_session, open_session


@pytest.fixture
async def ledger(engine: AsyncEngine) -> AsyncIterator[Ledger]:
    """A ledger with two players; whatever a test does to it, its books must hold."""
    await add_players(engine)
    yield Ledger(engine)
    await assert_books_hold(engine)


async def rows_posted(engine: AsyncEngine) -> tuple[int, int]:
    """Return how many transfers there are, and how many entries."""
    statement = text("SELECT (SELECT COUNT(*) FROM transfers), (SELECT COUNT(*) FROM entries)")
    async with engine.connect() as connection:
        transfers, entries = (await connection.execute(statement)).one()
    return transfers, entries


async def test_win_is_paid_and_told(ledger: Ledger) -> None:
    (outcome,) = await post(ledger, WIN)
    assert outcome.code is OutcomeCode.POSTED
    assert (receipt(outcome).real_minor, receipt(outcome).balance_minor) == (1050, 1050)
    assert await balance_minor(ledger) == 1050


async def test_every_field_of_a_win_is_kept(engine: AsyncEngine, ledger: Ledger) -> None:
    kept = win(kind=Kind.JACKPOT, wallet=Wallet.BONUS, round_closed=True, session_id="s", details={"ключ": "\x1b'"})
    await post(ledger, kept)
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM transfers"))).mappings().one()
    for field in ("integration", "provider_tx_id", "round_closed", "session_id", *Credit.FINGERPRINT):
        assert row[field] == getattr(kept, field)
    assert row["details"] == '{"ключ":"\\u001b\'"}'


async def test_repeat_tells_the_original_receipt_though_the_balance_moved(ledger: Ledger) -> None:
    (first,) = await post(ledger, WIN)
    await post(ledger, win("win-2"), win("win-3", wallet=Wallet.BONUS))
    (again,) = await post(ledger, WIN)
    assert again == Outcome(OutcomeCode.REPLAYED, first.receipt)
    assert await balance_minor(ledger) == 3 * 1050


async def test_repeat_in_one_batch_is_paid_once(ledger: Ledger) -> None:
    outcomes = await post(ledger, WIN, WIN, WIN)
    assert results(outcomes) == [OutcomeCode.POSTED, OutcomeCode.REPLAYED, OutcomeCode.REPLAYED]
    assert await balance_minor(ledger) == 1050


async def test_altered_repeat_is_a_conflict_that_names_what_differs(ledger: Ledger) -> None:
    await post(ledger, WIN)
    for field, value in OTHER_CONTENT.items():
        outcomes = await post(ledger, win(**{field: value}))
        assert outcomes == [Outcome(OutcomeCode.CONFLICT, mismatched_fields=(field,))]
    assert (await balance_minor(ledger), await balance_minor(ledger, "ben")) == (1050, 0)


async def test_conflict_of_long_ids_is_told_and_kept_cut(engine: AsyncEngine, ledger: Ledger) -> None:
    """PostgreSQL's index holds 2,704 bytes: the conflict was put aside as a credit that can't be posted."""
    texts = random.Random(1)
    long = ["".join(chr(texts.randrange(0x400, 0x800)) for _ in range(1_000)) for _ in range(3)]
    await post(ledger, WIN)
    altered = win(player_id="\U0001f3b0" * 128, round_id=long[0], game_id=long[1], bet_id=long[2])
    assert results(await post(ledger, altered)) == [OutcomeCode.CONFLICT]
    assert results(await post(ledger, win(game_id=long[1]))) == [OutcomeCode.CONFLICT]
    async with engine.connect() as connection:
        kept = (await connection.execute(text("SELECT offered FROM conflicts"))).scalars().all()
    games = {json.loads(offered)["game_id"] for offered in kept}
    assert games == {long[1], long[1][:128]}


async def test_of_what_else_was_sent_under_an_id_a_bounded_number_is_kept(engine: AsyncEngine, ledger: Ledger) -> None:
    """Whoever has one signed request may offer what its signature does not cover, without end."""
    await post(ledger, WIN, win("other"))
    late, *others = [win(game_id=str(number)) for number in range(CONFLICTS_MAX + 10)]
    assert results(await post(ledger, *others[:9], *others[:9])) == [OutcomeCode.CONFLICT] * 18
    for _ in range(2):
        assert set(results(await post(ledger, *others))) == {OutcomeCode.CONFLICT}
    await post(ledger, late, win("other", game_id="another"))
    async with engine.connect() as connection:
        kept = (await connection.execute(text("SELECT offered FROM conflicts"))).scalars().all()
    assert len(kept) == CONFLICTS_MAX + 1
    assert '{"game_id":"another"}' in kept
    assert '{"game_id":"0"}' not in kept


async def test_lost_bet_is_recorded_and_moves_nothing(engine: AsyncEngine, ledger: Ledger) -> None:
    lost = win("lost", amount_minor=0)
    outcomes = [*await post(ledger, WIN, lost), *await post(ledger, lost)]
    assert results(outcomes) == [OutcomeCode.POSTED, OutcomeCode.POSTED, OutcomeCode.REPLAYED]
    assert receipt(outcomes[2]).balance_minor == 1050
    assert await rows_posted(engine) == (2, 2)


async def test_win_that_can_not_be_paid_costs_the_others_of_its_batch_nothing(ledger: Ledger) -> None:
    outcomes = await post(
        ledger,
        win("a", player_id="nobody"),
        win("b", currency="USD"),
        win("c", amount_minor=MINOR_MAX),
        win("d", amount_minor=MINOR_MAX),
        win("e", player_id="ben"),
        win("f", session_id="never opened", open_session_only=True),
    )
    assert results(outcomes) == [
        OutcomeCode.UNKNOWN_PLAYER,
        OutcomeCode.WRONG_CURRENCY,
        OutcomeCode.POSTED,
        OutcomeCode.BALANCE_LIMIT,
        OutcomeCode.POSTED,
        OutcomeCode.SESSION_CLOSED,
    ]
    assert (await balance_minor(ledger), await balance_minor(ledger, "ben")) == (MINOR_MAX, 1050)


UNSTORABLE = {
    "NUL, which PostgreSQL's text can't hold": win("with\x00nul"),
    "more than 64 bits": win("too-long", amount_minor=-(2**70)),
    "half a character": win("lone-\ud800-surrogate"),
}


@pytest.mark.parametrize("bad", UNSTORABLE.values(), ids=UNSTORABLE)
async def test_win_that_can_not_be_stored_costs_the_others_of_its_batch_nothing(ledger: Ledger, bad: Credit) -> None:
    good = [win(f"win-{n}", player_id=player) for n in range(4) for player in ("anna", "ben")]
    good = [win(f"{c.provider_tx_id}-{c.player_id}", player_id=c.player_id) for c in good]
    outcomes = await LedgerService(ledger, MemoryCache()).post([*good[:3], bad, *good[3:]])
    # SQLite's text does hold a NUL, and so may pay it.
    assert outcomes.pop(3).code in {OutcomeCode.UNPOSTABLE, OutcomeCode.POSTED}
    assert results(outcomes) == [OutcomeCode.POSTED] * 8
    assert await balance_minor(ledger, "ben") == 4 * 1050


async def test_all_of_a_batch_is_posted_or_nothing(
    engine: AsyncEngine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = ledger._statements  # noqa: SLF001
    insert = statements.insert

    async def crash(*batch: Any) -> None:
        await insert(*batch)
        raise ConnectionResetError

    monkeypatch.setattr(statements, "insert", crash)
    with pytest.raises(LedgerUnavailable):
        await ledger.post([WIN, win("win-2")])
    assert await rows_posted(engine) == (0, 0)
    monkeypatch.undo()
    assert results(await post(ledger, WIN, win("win-2"))) == [OutcomeCode.POSTED, OutcomeCode.POSTED]


async def test_thousand_wins_in_one_batch_are_exact(ledger: Ledger) -> None:
    chance = random.Random(1)
    batch = [
        win(f"win-{n}", amount_minor=chance.randrange(100_000), wallet=chance.choice(list(Wallet)))
        for n in range(1_000)
    ]
    outcomes = await post(ledger, *batch, *batch)
    assert results(outcomes) == [OutcomeCode.POSTED] * 1_000 + [OutcomeCode.REPLAYED] * 1_000
    assert await balance_minor(ledger) == sum(credit.amount_minor for credit in batch)


async def test_player_may_hold_several_currencies(engine: AsyncEngine, ledger: Ledger) -> None:
    await add_player(engine, "anna", "JPY")
    outcomes = await post(ledger, WIN, win("win-2", currency="JPY", amount_minor=7))
    assert [receipt(o).balance_minor for o in outcomes] == [1050, 7]
    assert await balance_minor(ledger) == 1050


async def test_win_is_flagged_only_if_its_round_was_closed_before_it_came(engine: AsyncEngine, ledger: Ledger) -> None:
    """A batch is written in the order of its ids, which is not the order in which its wins came."""
    await post(ledger, win("2-before"), win("1-closing", round_closed=True), win("0-after"))
    await post(ledger, win("3-later"), win("4-another-round", round_id="round-2"), win("5", round_id=None))
    flagged = text("SELECT provider_tx_id FROM transfers WHERE after_round_closed ORDER BY provider_tx_id")
    async with engine.connect() as connection:
        assert (await connection.execute(flagged)).scalars().all() == ["0-after", "3-later"]


async def test_session_keeps_its_player_and_wins_are_paid_after_it_closed(engine: AsyncEngine, ledger: Ledger) -> None:
    await open_session(engine, "gpas", "s", "anna")
    needs_open = win("win-2", integration="gpas", session_id="s", open_session_only=True)
    assert results(await post(ledger, needs_open)) == [OutcomeCode.POSTED]
    await close_session(engine, "gpas", "s")
    late = win("win-3", integration="gpas", session_id="s")
    refused = win("win-4", integration="gpas", session_id="s", open_session_only=True)
    outcomes = await post(ledger, late, refused, needs_open)
    assert results(outcomes) == [OutcomeCode.POSTED, OutcomeCode.SESSION_CLOSED, OutcomeCode.REPLAYED]
    found = await ledger.find([FindSession("gpas", "s"), FindSession("klas", "s")])
    assert {q: h.player_id for q, h in found.items()} == {FindSession("gpas", "s"): "anna"}


async def test_balance_is_told_while_another_writes(engine: AsyncEngine, ledger: Ledger) -> None:
    epoch = await ledger.epoch()
    async with engine.begin() as writing:
        await writing.execute(text("UPDATE wallets SET version = version"))
        assert await balance_minor(ledger) == 0
        assert await ledger.epoch() == epoch
        await require_migrated(engine)


CHANGES = {
    "update transfers": "UPDATE transfers SET amount_minor = amount_minor",
    "delete transfers": "DELETE FROM transfers",
    "update entries": "UPDATE entries SET amount_minor = amount_minor",
    "delete entries": "DELETE FROM entries",
    "replace transfers": "REPLACE INTO transfers SELECT * FROM transfers",
    "replace entries": "REPLACE INTO entries SELECT * FROM entries",
    "truncate transfers": "TRUNCATE transfers CASCADE",
    "truncate entries": "TRUNCATE entries",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_posted_win_can_not_be_rewritten(engine: AsyncEngine, ledger: Ledger, change: str) -> None:
    word = change.split(maxsplit=1)[0]
    if word == {"postgresql": "REPLACE", "sqlite": "TRUNCATE"}[engine.dialect.name]:
        return  # not a word of this database
    await post(ledger, WIN)
    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(text(change))
    assert await rows_posted(engine) == (1, 2)
