"""The tables: what `migrate` makes is what the code expects, whoever calls it, however often, at once."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import SettingsError
from shared.settings import LedgerSettings
from tests.support.credits import WIN
from tests.support.paths import ROOT
from tests.support.servers import fresh_database
from worker.database.engine import create_engine
from worker.database.migrate import head_revision, migrate, pending_migration
from worker.database.schema import metadata
from worker.ledger.transaction import Ledger
from worker.players import add_player


async def test_migrated_tables_are_those_that_the_code_expects(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


def _differences(connection: Connection) -> list[Any]:
    """Return what differs, but for foreign keys: Alembic doesn't know that some are SQLite's alone."""
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_object": lambda _object, _name, type_, *_: type_ != "foreign_key_constraint",
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_version_of_the_tables_is_that_of_the_last_migration() -> None:
    """Else a new version would serve on old tables, or never serve."""
    assert ScriptDirectory(str(ROOT / "worker/database/migrations")).get_heads() == [head_revision()]


async def test_migrated_constraints_are_those_that_the_code_expects(
    engine: AsyncEngine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two databases are held against each other in what Alembic's comparison passes over."""
    if engine.dialect.name == "sqlite":
        other_url = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    else:
        other_url = await fresh_database(request.getfixturevalue("servers"))
    other = create_engine(LedgerSettings(database_url=other_url))
    try:
        async with other.begin() as connection:
            await connection.run_sync(metadata.create_all)
            expected = await connection.run_sync(_constraints)
        async with engine.connect() as connection:
            assert await connection.run_sync(_constraints) == expected
    finally:
        await other.dispose()


def _constraints(connection: Connection) -> dict[str, Any]:
    inspector = inspect(connection)
    return {
        table: (
            inspector.get_pk_constraint(table),
            sorted(inspector.get_unique_constraints(table), key=lambda c: str(c["name"])),
            sorted(inspector.get_foreign_keys(table), key=lambda c: str(c["name"])),
            sorted(inspector.get_check_constraints(table), key=lambda c: str(c["name"])),
            [_comparable(index) for index in sorted(inspector.get_indexes(table), key=lambda c: str(c["name"]))],
        )
        for table in metadata.tables
    }


def _comparable(index: Mapping[str, Any]) -> dict[str, Any]:
    """Return an index with the condition of a partial one as its text: two clauses are never equal."""
    return {**index, "dialect_options": {k: str(v) for k, v in index.get("dialect_options", {}).items()}}


async def test_no_index_depends_on_the_order_of_a_language(postgres: AsyncEngine) -> None:
    """After an upgrade of the C library it would lose rows, and a win would be paid again."""
    ordered = text(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
    )
    async with postgres.connect() as connection:
        assert (await connection.execute(ordered)).all() == []


async def test_migrating_again_changes_nothing_that_is_posted(engine: AsyncEngine) -> None:
    await add_player(engine, "anna", "EUR")
    await Ledger(engine).post([WIN])
    before, after = await migrate(engine)
    assert before == after == head_revision()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT amount_minor FROM transfers"))).scalars().all() == [1050]


MIGRATE_ON_A_SIGN = """
import sys
from worker.cli import main
sys.argv[1:] = ["migrate"]
print("ready", flush=True)
input()
main()
"""


@pytest.mark.slow
async def test_several_that_migrate_at_once_wait_for_one_another(database_url: str) -> None:
    environment = {**os.environ, "CREDITS_CONFIG": "", "CREDITS_LEDGER__DATABASE_URL": database_url}
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            MIGRATE_ON_A_SIGN,
            cwd=ROOT,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    printed = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 4, printed
    assert sum(b"from no tables" in out for out, _ in printed) == 1


async def test_empty_database_is_told_to_be_migrated(database_url: str) -> None:
    engine = create_engine(LedgerSettings(database_url=database_url))
    try:
        assert await pending_migration(engine)
        assert await migrate(engine) == (None, head_revision())
        assert not await pending_migration(engine)
    finally:
        await engine.dispose()


async def test_tables_of_a_later_version_are_left_alone(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert await pending_migration(engine)
    with pytest.raises(SettingsError, match="9999"):
        await migrate(engine)


async def test_migration_that_fails_leaves_no_half_made_tables(database_url: str) -> None:
    engine = create_engine(LedgerSettings(database_url=database_url))
    try:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE entries (mine integer)"))
        with pytest.raises(Exception, match="entries"):
            await migrate(engine)
        async with engine.connect() as connection:
            assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == ["entries"]
    finally:
        await engine.dispose()
