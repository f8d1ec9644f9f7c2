"""An integration is of one cell: moved by editing the settings, its wins are not paid again elsewhere."""

from collections.abc import AsyncIterator
from math import inf
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.cells import settings_of
from shared.errors import SettingsError
from shared.outcome import Balance, Outcome, OutcomeCode
from shared.queries import FindPlayer, FindSession
from shared.settings import Settings
from tests.integration.conftest import EmptyFile, engine_of
from tests.support.commands import ON_SQLITE, run_with
from tests.support.credits import win
from tests.support.ledgers import add_players, results
from worker.cli.exit_codes import ExitCode
from worker.integrations import Assigned, Assignment, assign, find_posted, read_assigned
from worker.ledger.cache.outcomes import MemoryCache
from worker.ledger.service import LedgerService, open_ledger_service
from worker.ledger.transaction import Ledger


@pytest.fixture
async def brand2(tmp_path: Path, empty_file: EmptyFile) -> AsyncIterator[AsyncEngine]:
    """The books of another cell."""
    await empty_file.copy_to(tmp_path / "brand2.db")
    async with engine_of(f"sqlite+aiosqlite:///{tmp_path}/brand2.db") as engine:
        yield engine


async def bookkeeper_of(engine: AsyncEngine, cell: str) -> LedgerService:
    assignment = Assignment(engine, cell)
    await assignment.require()
    return LedgerService(Ledger(engine), MemoryCache(), assignment=assignment)


async def test_worker_posts_what_is_assigned_and_puts_the_rest_aside(engine: AsyncEngine) -> None:
    await add_players(engine)
    await assign({"brand2": engine}, {"brand2": ["klas"]})
    bookkeeper = await bookkeeper_of(engine, "brand2")
    batch = [win("a"), win("b", integration="gpas"), win("c", player_id="ben")]
    expected = [OutcomeCode.POSTED, OutcomeCode.UNPOSTABLE, OutcomeCode.POSTED]
    assert results(await bookkeeper.post(batch)) == expected
    assert await find_posted(engine) == {"klas"}
    await assign({"brand2": engine}, {"brand2": ["klas", "gpas"]})
    bookkeeper.epoch_known_until = 0.0  # a second has passed
    assert results(await bookkeeper.post(batch[1:2])) == [OutcomeCode.POSTED]
    assert await find_posted(engine) == {"gpas", "klas"}


@pytest.mark.any_server
async def test_without_cells_whatever_comes_is_posted(engine: AsyncEngine) -> None:
    await add_players(engine)
    bookkeeper = await bookkeeper_of(engine, "main")
    assert results(await bookkeeper.post([win("a", integration="any")])) == [OutcomeCode.POSTED]


@pytest.mark.any_server
async def test_books_that_became_a_cells_are_followed_by_workers_that_run(engine: AsyncEngine) -> None:
    await add_players(engine)
    bookkeeper = await bookkeeper_of(engine, "main")
    await bookkeeper.post([win("a", integration="retired")])
    assert await assign({"main": engine}, {"main": ["klas"]}) == {"main": ["klas", "retired"]}
    bookkeeper.epoch_known_until = 0.0  # a second has passed
    batch = [win("b", integration="retired"), win("c", integration="another")]
    assert results(await bookkeeper.post(batch)) == [OutcomeCode.POSTED, OutcomeCode.UNPOSTABLE]


@ON_SQLITE
async def test_integration_that_another_cell_has_is_not_assigned(engine: AsyncEngine, brand2: AsyncEngine) -> None:
    await add_players(engine)
    await Ledger(engine).post([win("a")])
    engines = {"main": engine, "brand2": brand2}
    with pytest.raises(SettingsError, match=r"^\[integrations.klas\] cell: cell 'main' has paid wins of it"):
        await assign(engines, {"main": [], "brand2": ["klas"]})
    await assign(engines, {"main": ["klas"], "brand2": ["gpas"]})
    with pytest.raises(SettingsError, match=r"^\[integrations.gpas\] cell: cell 'brand2' serves it"):
        await assign(engines, {"main": ["klas", "gpas"], "brand2": []})


@ON_SQLITE
async def test_integration_of_a_cell_that_settings_name_no_more_is_not_assigned(
    engine: AsyncEngine, brand2: AsyncEngine
) -> None:
    """Its books are not reached any more, and nobody else could say that they have paid."""
    await assign({"main": engine, "brand2": brand2}, {"main": ["klas"], "brand2": ["gpas"]})
    await assign({"main": engine, "brand2": brand2}, {"main": ["klas"], "brand2": ["hpgames"]})
    for name in ("gpas", "hpgames"):
        with pytest.raises(SettingsError, match=rf"^\[integrations.{name}\] cell: cell 'brand2' has served it"):
            await assign({"main": engine}, {"main": ["klas", name]})
    found = await read_assigned(engine)
    assert found == Assigned("main", frozenset({"klas"}), {"gpas": "brand2", "hpgames": "brand2"})
    bookkeeper = await bookkeeper_of(engine, "main")
    await add_players(engine)
    assert results(await bookkeeper.post([win("a", integration="gpas")])) == [OutcomeCode.UNPOSTABLE]


@ON_SQLITE
async def test_balances_and_sessions_of_another_cell_are_not_told(engine: AsyncEngine, brand2: AsyncEngine) -> None:
    """As a gateway with old settings asks: main has a player of the same id, who is another person."""
    await add_players(engine)
    await assign({"main": engine, "brand2": brand2}, {"main": ["klas"], "brand2": ["gpas"]})
    bookkeeper, unavailable = await bookkeeper_of(engine, "main"), Outcome(OutcomeCode.UNAVAILABLE)
    own, foreign, older = FindPlayer("anna", "klas"), FindPlayer("anna", "gpas"), FindPlayer("anna")
    anna = Balance("anna", "EUR", 0, 0)
    session = FindSession("gpas", "s")
    _, told = await bookkeeper.answer([], [own, foreign, older, session, FindPlayer("nobody", "klas")])
    assert told == [anna, unavailable, anna, unavailable, None]
    assert await bookkeeper.answer([], [foreign]) == ([], [unavailable])
    assert await bookkeeper.answer([], [FindPlayer("")]) == ([], [None]), "a gateway is ready"
    assert await bookkeeper.answer([], [FindPlayer("anna", "unassigned")]) == ([], [anna])


async def test_books_of_another_cell_tell_nothing_of_its_players(engine: AsyncEngine) -> None:
    """As a worker runs on while its database is replaced by another cell's."""
    await add_players(engine)
    bookkeeper = await bookkeeper_of(engine, "main")
    await assign({"brand2": engine}, {"brand2": ["gpas"]})
    bookkeeper.epoch_known_until = 0.0  # a second has passed
    assert await bookkeeper.answer([], [FindPlayer("anna", "gpas")]) == ([], [Outcome(OutcomeCode.UNAVAILABLE)])


@pytest.mark.any_server
async def test_what_is_not_this_cells_is_a_line_a_second_however_many_batches_come(
    engine: AsyncEngine,
) -> None:
    await assign({"main": engine}, {"main": ["klas"]})
    bookkeeper = await bookkeeper_of(engine, "main")
    assert bookkeeper.assignment is not None
    with capture_logs() as lines:
        for number in range(50):
            await bookkeeper.post([win(f"a-{number}", integration="hpgames"), win(f"b-{number}", integration="x")])
        bookkeeper.assignment.flush_log()
    assert sum(line["times"] for line in lines if line["integration"] == "hpgames") == 50
    assert {line["event"] for line in lines} == {"integration is not this cell's"}
    assert len(lines) < 50


@ON_SQLITE
async def test_integration_that_is_released_is_assigned_to_another_cell(
    engine: AsyncEngine, brand2: AsyncEngine
) -> None:
    engines = {"main": engine, "brand2": brand2}
    await assign(engines, {"main": ["klas"], "brand2": ["gpas"]})
    async with brand2.begin() as connection:
        await connection.execute(text("DELETE FROM served_integrations WHERE integration = 'gpas'"))
    assert await assign(engines, {"main": ["klas", "gpas"], "brand2": []}) == {"main": ["gpas"], "brand2": []}
    assert (await read_assigned(engine)).integrations == {"gpas", "klas"}
    found = await read_assigned(brand2)
    assert (found.integrations, found.elsewhere) == (frozenset(), {"gpas": "main", "klas": "main"})
    assert await assign(engines, {"main": ["klas", "gpas"], "brand2": []}) == {"main": [], "brand2": []}


@pytest.mark.any_server
@ON_SQLITE
async def test_database_of_two_names_is_the_first_cells(engine: AsyncEngine) -> None:
    with pytest.raises(SettingsError, match=r"^\[cells.brand2.ledger\] database_url: is the database of cell"):
        await assign({"main": engine, "brand2": engine}, {"main": ["klas"], "brand2": ["gpas"]})
    found = await read_assigned(engine)
    assert (found.cell, found.integrations) == ("main", frozenset({"klas"}))


@ON_SQLITE
async def test_win_that_is_paid_while_its_integration_moves_keeps_it_where_it_was(
    engine: AsyncEngine, brand2: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of the only books go on for a moment with whatever comes."""
    await add_players(engine)
    bookkeeper = await bookkeeper_of(engine, "main")

    async def meanwhile(_seconds: float) -> None:
        assert results(await bookkeeper.post([win("a", integration="gpas")])) == [OutcomeCode.POSTED]

    monkeypatch.setattr("worker.integrations.asyncio.sleep", meanwhile)
    bookkeeper.epoch_known_until = inf  # it has just read that it may
    wanted = {"main": ["klas"], "brand2": ["gpas"]}
    for _ in range(2):
        with pytest.raises(SettingsError, match="cell 'main' has paid wins of it"):
            await assign({"main": engine, "brand2": brand2}, wanted)
    assert (await read_assigned(engine)).integrations == {"klas"}
    assert (await read_assigned(brand2)).cell is None


@ON_SQLITE
async def test_database_of_no_cell_or_of_another_stops_a_worker(engine: AsyncEngine, database_url: str) -> None:
    tables = {"cells": {"brand2": {"ledger": {"database_url": database_url}}}}
    settings = Settings.model_validate(tables)

    async def start() -> None:
        async with open_ledger_service(settings_of(settings, "brand2")):
            raise AssertionError("it serves")

    with pytest.raises(SettingsError, match="does not know yet that it is cell 'brand2'"):
        await start()
    await assign({"other": engine}, {"other": ["klas"]})
    with pytest.raises(SettingsError, match="is the database of cell 'other'"):
        await start()


@pytest.mark.slow
@ON_SQLITE
async def test_migrate_assigns_the_integrations_of_the_only_named_cell(database_url: str) -> None:
    environment = {
        "CREDITS_CONFIG": "",
        "CREDITS_CELLS__BRAND2__LEDGER__DATABASE_URL": database_url,
        "CREDITS_INTEGRATIONS__KLAS__PROVIDER": "klas",
        "CREDITS_INTEGRATIONS__KLAS__CELL": "brand2",
    }
    one, whole = [await run_with(environment, "migrate", *named) for named in (["--cell", "brand2"], [])]
    assert (one.code, whole.code) == (ExitCode.OK, ExitCode.OK)
    assert "assigned to cells by `migrate` without --cell" in one.err
    assert "cell brand2 serves klas from now on" in whole.out
    async with engine_of(database_url) as engine:
        found = await read_assigned(engine)
    assert (found.cell, set(found.integrations)) == ("brand2", {"klas"})
