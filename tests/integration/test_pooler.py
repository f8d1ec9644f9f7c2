"""PgBouncer before PostgreSQL: in either mode all that is owed is paid once, or the start is refused."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import SettingsError
from shared.outcome import OutcomeCode
from shared.settings import LedgerSettings
from tests.support.commands import run
from tests.support.credits import win
from tests.support.ledgers import add_players, assert_books_hold, post
from tests.support.pgbouncer import running_pgbouncer
from tests.support.servers import Servers, drop_database, fresh_database
from worker.cli.exit_codes import ExitCode
from worker.database.engine import create_engine
from worker.database.migrate import migrate, require_migrated
from worker.database.pooler import is_pooled_by_transaction
from worker.database.transactions import snapshot
from worker.ledger.transaction import Ledger

WORKERS = 3
WINS = 60


@pytest.fixture(scope="module", params=["session", "transaction"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bouncer_url(servers: Servers, tmp_path_factory: pytest.TempPathFactory, mode: str) -> Iterator[str]:
    """The URL of PgBouncer, which in transaction mode has fewer connections than there are clients."""
    servers_max = 3 if mode == "transaction" else 50
    directory = tmp_path_factory.mktemp("pgbouncer")
    with running_pgbouncer(servers, directory, mode, servers_max=servers_max) as bouncer:
        yield bouncer.url.rpartition("/")[0]


@pytest.fixture
async def pooled_url(servers: Servers, bouncer_url: str) -> AsyncIterator[str]:
    """The URL by which PgBouncer leads to an empty database."""
    url = await fresh_database(servers)
    yield f"{bouncer_url}/{url.rpartition('/')[2]}"
    await drop_database(servers, url)


@pytest.fixture
async def engines(pooled_url: str, mode: str) -> AsyncIterator[list[AsyncEngine]]:
    """The engines of several workers, each with connections of its own, on migrated tables."""
    settings = LedgerSettings.model_validate({"database_url": pooled_url, "pooler": mode, "statement_seconds_max": 60})
    async with AsyncExitStack() as stack:
        made = [create_engine(settings) for _ in range(WORKERS)]
        for engine in made:
            stack.push_async_callback(engine.dispose)
        await asyncio.gather(*(migrate(engine) for engine in made))
        yield made


async def test_wins_sent_to_several_workers_at_once_are_each_paid_once(engines: list[AsyncEngine]) -> None:
    await add_players(engines[0])
    ledgers = [Ledger(engine) for engine in engines]
    players = ("anna", "ben")
    sent = [post(ledger, win(f"w-{n}", player_id=players[n % 2])) for n in range(WINS) for ledger in ledgers]
    outcomes = [outcome.code for (outcome,) in await asyncio.gather(*sent)]
    assert (outcomes.count(OutcomeCode.POSTED), outcomes.count(OutcomeCode.REPLAYED)) == (
        WINS,
        WINS * (WORKERS - 1),
    )
    new = await asyncio.gather(*(ledger.post_new([win(f"new-{n}")]) for n, ledger in enumerate(ledgers)))
    assert any(planned is not None for planned in new)
    await assert_books_hold(engines[0])
    posted = 0
    async with snapshot(engines[1]) as connection:
        posted = (await connection.execute(text("SELECT count(*) FROM transfers"))).scalar_one()
    assert posted == WINS + sum(planned is not None for planned in new)


async def test_settings_are_in_force_for_us_and_for_nobody_else(
    engines: list[AsyncEngine], pooled_url: str, mode: str
) -> None:
    async def in_force(engine: AsyncEngine) -> tuple[str, str]:
        async with engine.connect() as connection:
            shown = [await connection.execute(text(f"SHOW {name}")) for name in ("jit", "enable_seqscan")]
            return shown[0].scalar_one(), shown[1].scalar_one()

    assert {await in_force(engine) for engine in engines for _ in range(5)} == {("off", "off")}
    assert {is_pooled_by_transaction(engine) for engine in engines} == {mode == "transaction"}
    for engine in engines:
        await engine.dispose()
    other = await asyncpg.connect(pooled_url.replace("+asyncpg", ""), statement_cache_size=0)
    try:
        for _ in range(5):
            assert await other.fetchval("SHOW enable_seqscan") == "on"
    finally:
        await other.close()


async def test_commands_work_through_the_pooler(pooled_url: str, mode: str) -> None:
    settings = {"CREDITS_LEDGER__POOLER": mode}
    for arguments in (("migrate",), ("player", "add", "anna", "--currency", "EUR"), ("verify", "--full")):
        ended = await run(pooled_url, *arguments, **settings)
        assert ended.code == ExitCode.OK, ended


@pytest.mark.parametrize("mode", ["transaction"], indirect=True)
async def test_no_statement_has_a_name_that_another_process_may_give(engines: list[AsyncEngine]) -> None:
    for engine in engines:
        async with engine.connect() as connection:
            named = await connection.execute(text("SELECT count(*) FROM pg_prepared_statements"))
            assert named.scalar_one() == 0


@pytest.mark.parametrize("command", [("migrate",), ("player", "show", "anna"), ("operator",)])
async def test_pooler_that_the_settings_do_not_name_stops_the_start(pooled_url: str, command: tuple[str, ...]) -> None:
    tokens = {"CREDITS_OPERATOR__TOKENS": "a-token-of-16-characters"}
    ended = await run(pooled_url, *command, **tokens)
    assert ended.error(ExitCode.SETTINGS).startswith("error: [ledger] pooler: one is there, and refuses")
    assert ended.err.count("\n") == 1


async def test_pooler_that_drops_settings_or_is_in_the_other_mode_stops_the_start(
    servers: Servers, tmp_path: Path
) -> None:
    dropped = "jit,enable_seqscan,client_min_messages"
    with running_pgbouncer(servers, tmp_path, "transaction", ignored=dropped) as bouncer:
        for pooler, words in (("none", "drops our settings"), ("session", '"transaction"')):
            settings = LedgerSettings.model_validate({"database_url": bouncer.url, "pooler": pooler})
            engine = create_engine(settings)
            try:
                with pytest.raises(SettingsError, match=words):
                    await require_migrated(engine)
            finally:
                await engine.dispose()
