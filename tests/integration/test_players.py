"""Players and sessions when several add them at once: each is there once, whoever was first."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.players import Added, SessionResult, add_player, close_session, open_session


async def test_player_added_by_several_at_once_is_there_once(engine: AsyncEngine) -> None:
    added = await asyncio.gather(*(add_player(engine, "anna", ("EUR", "JPY")[n % 2]) for n in range(12)))
    assert sorted(a.added for a in added) == [*[Added.NOTHING] * 10, Added.PLAYER, Added.WALLETS]
    assert len({a.currency for a in added}) == 1, "all were told the same currency as the player's own"
    async with engine.connect() as connection:
        wallets = await connection.execute(text("SELECT COUNT(*) FROM wallets"))
        assert wallets.scalar_one() == 4


async def test_session_opened_by_several_at_once_is_of_one_player(engine: AsyncEngine) -> None:
    for player_id in ("anna", "ben"):
        await add_player(engine, player_id, "EUR")
    answers = await asyncio.gather(*(open_session(engine, "gpas", "s", ("anna", "ben")[n % 2]) for n in range(12)))
    results = [answer.result for answer in answers]
    assert results.count(SessionResult.OPENED) == 1
    assert results.count(SessionResult.ALREADY_OPEN) == 5
    assert results.count(SessionResult.ANOTHERS) == 6


async def test_session_closed_by_several_at_once_has_one_moment_of_closing(engine: AsyncEngine) -> None:
    await add_player(engine, "anna", "EUR")
    await open_session(engine, "gpas", "s", "anna")
    answers = await asyncio.gather(*(close_session(engine, "gpas", "s") for _ in range(6)))
    assert [answer.result for answer in answers].count(SessionResult.CLOSED) == 1
    assert len({answer.session for answer in answers}) == 1


async def test_same_session_id_of_two_integrations_is_two_sessions(engine: AsyncEngine) -> None:
    for player_id in ("anna", "ben"):
        await add_player(engine, player_id, "EUR")
    first = await open_session(engine, "gpas", "s", "anna")
    second = await open_session(engine, "klas", "s", "ben")
    assert (first.result, second.result) == (SessionResult.OPENED, SessionResult.OPENED)
