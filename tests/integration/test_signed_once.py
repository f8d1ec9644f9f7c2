"""One signed message pays one content, once, whoever cuts it into whatever ids, amounts and players."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from tests.support.credits import WIN, win
from tests.support.ledgers import add_players, assert_books_hold, balance_minor, post, results
from worker.ledger.transaction import Ledger

MESSAGE = sha256(b"a signed message").digest()
SIGNED = win(signed_digest=MESSAGE)


@pytest.fixture
async def ledger(engine: AsyncEngine) -> AsyncIterator[Ledger]:
    await add_players(engine)
    yield Ledger(engine)
    await assert_books_hold(engine)


def recut(provider_tx_id: str, **different: Any) -> Credit:
    """Return another credit that the same signed message is said to ask for."""
    return msgspec.structs.replace(SIGNED, provider_tx_id=provider_tx_id, **different)


async def conflicts(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT offered FROM conflicts ORDER BY offered"))
        return list(rows.scalars())


async def test_message_cut_elsewhere_is_a_conflict_that_is_kept(engine: AsyncEngine, ledger: Ledger) -> None:
    await post(ledger, SIGNED)
    outcomes = await post(ledger, recut("win-1r"), recut("win-2", player_id="ben", amount_minor=99_999_100))
    assert outcomes == [
        Outcome(OutcomeCode.CONFLICT, mismatched_fields=("provider_tx_id",)),
        Outcome(OutcomeCode.CONFLICT, mismatched_fields=("provider_tx_id", "player_id", "amount_minor")),
    ]
    assert (await balance_minor(ledger), await balance_minor(ledger, "ben")) == (1050, 0)
    assert await conflicts(engine) == [
        '{"provider_tx_id":"win-1r"}',
        '{"provider_tx_id":"win-2","player_id":"ben","amount_minor":99999100}',
    ]


async def test_message_cut_sixty_ways_in_one_batch_pays_once(ledger: Ledger) -> None:
    outcomes = await post(ledger, *(recut(f"win-{n}") for n in range(60)))
    assert results(outcomes) == [OutcomeCode.POSTED, *[OutcomeCode.CONFLICT] * 59]
    assert await balance_minor(ledger) == 1050


async def test_repeat_of_a_signed_message_is_a_replay(ledger: Ledger) -> None:
    (first,) = await post(ledger, SIGNED)
    assert await post(ledger, SIGNED) == [Outcome(OutcomeCode.REPLAYED, first.receipt)]


async def test_messages_of_other_integrations_and_unsigned_ones_are_their_own(ledger: Ledger) -> None:
    others = [recut("win-1", integration="other"), win("win-2"), win("win-3")]
    assert results(await post(ledger, SIGNED, *others)) == [OutcomeCode.POSTED] * 4


async def test_message_that_was_refused_may_still_pay(ledger: Ledger) -> None:
    """Only what has paid is spent: a win for a player who is added later is owed."""
    outcomes = await post(ledger, recut("win-1", player_id="nobody yet"), SIGNED)
    assert results(outcomes) == [OutcomeCode.UNKNOWN_PLAYER, OutcomeCode.POSTED]


async def test_database_itself_refuses_a_message_twice(engine: AsyncEngine, ledger: Ledger) -> None:
    await post(ledger, SIGNED)
    copied = {"id": "'11111111111141118111111111111111'", "provider_tx_id": "'by hand'"}
    async with engine.connect() as connection:
        names = list((await connection.execute(text("SELECT * FROM transfers"))).keys())
    columns, values = ", ".join(names), ", ".join(copied.get(name, name) for name in names)
    if engine.dialect.name == "postgresql":
        values = values.replace(copied["id"], f"{copied['id']}::uuid")
    for word in ("INSERT", "REPLACE" if engine.dialect.name == "sqlite" else "INSERT"):
        with pytest.raises(DBAPIError):
            async with engine.begin() as connection:
                await connection.execute(
                    text(f"{word} INTO transfers ({columns}) SELECT {values} FROM transfers")  # noqa: S608
                )


async def test_same_message_at_several_workers_at_once_pays_once(postgres: AsyncEngine) -> None:
    await add_players(postgres)
    workers = [Ledger(postgres) for _ in range(4)]
    for number in range(10):
        digest = sha256(b"%d" % number).digest()
        cuts = [win(f"{number}-{n}", player_id=("anna", "ben")[n % 2], signed_digest=digest) for n in range(8)]
        posts = [post(workers[n % 4], cut) for n, cut in enumerate(cuts)]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*posts)]
        assert sorted(results(outcomes)) == [*[OutcomeCode.CONFLICT] * 7, OutcomeCode.POSTED]
    assert await balance_minor(workers[0]) + await balance_minor(workers[0], "ben") == 10 * 1050
    await assert_books_hold(postgres)


async def test_column_is_empty_where_the_message_determines_its_fields(engine: AsyncEngine, ledger: Ledger) -> None:
    await post(ledger, WIN, recut("win-2"))
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT signed_digest FROM transfers ORDER BY provider_tx_id"))
        assert rows.scalars().all() == [None, MESSAGE]
