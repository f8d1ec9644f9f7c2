"""PostgreSQL roles: each process can do its work with its own, and can't touch what is posted."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerUnavailable
from shared.money import Currencies
from shared.outcome import OutcomeCode
from shared.queries import FindPlayer, FindSession
from tests.integration.conftest import engine_of
from tests.support.commands import Ended, run
from tests.support.credits import WIN, win
from worker.cli.exit_codes import ExitCode
from worker.database.audit_log import PROCESS, Action, moment_of, record
from worker.database.grants import AUDITOR, OPERATOR, READER, WORKER, Rights, grant
from worker.database.schema import metadata
from worker.ledger.cache.outcomes import MemoryCache
from worker.ledger.service import LedgerService
from worker.ledger.transaction import Ledger
from worker.players import SessionResult, add_player, close_session, open_session
from worker.queries import queries
from worker.queries.audit_entries import AuditLine, AuditQuery, list_audit
from worker.queries.paging import Page
from worker.verify import verify

ROLES = ("worker", "operator", "reader", "auditor")


class Roles:
    """The four roles of one test, and engines that connect as each."""

    def __init__(self, owner: AsyncEngine) -> None:
        self.owner = owner
        self.engines: dict[str, AsyncEngine] = {}
        self.names = {role: f"{role}-{uuid4().hex[:8]}" for role in ROLES}

    @property
    def url(self) -> str:
        return self.owner.url.render_as_string(hide_password=False)

    def url_of(self, role: str) -> str:
        url = self.owner.url.set(username=self.names[role], password="a-password")
        return url.render_as_string(hide_password=False)

    async def command(self, *arguments: str) -> Ended:
        return await run(self.url, "grants", *self.options, *arguments)

    @property
    def options(self) -> list[str]:
        return [word for role, name in self.names.items() for word in (f"--{role}", name)]


@pytest.fixture
async def roles(postgres: AsyncEngine) -> AsyncIterator[Roles]:
    """Roles with what `grants` gives them, on books with a player and two wins."""
    made = Roles(postgres)
    await add_player(postgres, "anna", "EUR")
    await Ledger(postgres).post([WIN, win("lost", amount_minor=0)])
    await _execute(postgres, *(f"CREATE ROLE \"{n}\" LOGIN PASSWORD 'a-password'" for n in made.names.values()))
    try:
        rights = {"worker": WORKER, "operator": OPERATOR, "reader": READER, "auditor": AUDITOR}
        await grant(postgres, {made.names[role]: rights[role] for role in ROLES})
        async with AsyncExitStack() as opened:
            for role in ROLES:
                made.engines[role] = await opened.enter_async_context(engine_of(made.url_of(role)))
            yield made
    finally:
        for name in made.names.values():
            await _execute(postgres, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


async def _execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_worker_posts_repeats_and_conflicts_as_its_role(roles: Roles) -> None:
    ledger = Ledger(roles.engines["worker"])
    bookkeeper = LedgerService(ledger, MemoryCache())
    mixed = [win("new"), WIN, win(amount_minor=1), win("nobody's", player_id="nobody")]
    outcomes = await bookkeeper.post([win("first")]) + await bookkeeper.post(mixed)
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.POSTED,
        OutcomeCode.POSTED,
        OutcomeCode.REPLAYED,
        OutcomeCode.CONFLICT,
        OutcomeCode.UNKNOWN_PLAYER,
    ]
    needs_session = win("in a session", integration="gpas", session_id="s", open_session_only=True)
    (closed,) = await bookkeeper.post([needs_session])
    assert closed.code is OutcomeCode.SESSION_CLOSED
    assert FindPlayer("anna") in await ledger.find([FindPlayer("anna"), FindSession("gpas", "s")])
    assert len((await ledger.keyed_epoch()).cache_key) == 32
    audit = await verify(roles.engines["worker"], Currencies())
    assert (audit.holds, audit.coverage.is_verified_point) == (True, False)


async def test_operator_opens_players_and_sessions_and_reads_as_its_role(roles: Roles) -> None:
    engine, currencies = roles.engines["operator"], Currencies()
    await add_player(engine, "ben", "EUR")
    await add_player(engine, "ben", "USD")
    assert (await open_session(engine, "gpas", "s", "ben")).result is SessionResult.OPENED
    assert (await close_session(engine, "gpas", "s")).result is SessionResult.CLOSED
    assert await queries.show_player(engine, currencies, "anna")
    assert (await queries.show_transfer(engine, currencies, *WIN.identity)).posted
    assert await queries.show_round(engine, currencies, WIN.integration, str(WIN.round_id), Page(10, None))
    assert await Ledger(engine).epoch()


@pytest.mark.parametrize("role", ["reader", "auditor"])
async def test_books_are_read_and_proven_as_a_role_that_posts_nothing(roles: Roles, role: str) -> None:
    engine = roles.engines[role]
    assert await queries.show_player(engine, Currencies(), "anna")
    for _ in range(2):
        audit = await verify(engine, Currencies())
        assert (audit.holds, audit.coverage.is_verified_point) == (True, role == "auditor")


SAID_NO = "permission denied|must be owner"
FORBIDDEN_TO_ALL = (
    "ALTER TABLE transfers ADD COLUMN more text",
    "ALTER TABLE transfers DISABLE TRIGGER ALL",
    "ALTER TABLE wallets DROP CONSTRAINT ck_wallets_balance",
    "DROP TRIGGER transfers_append_only ON transfers",
    "DROP TABLE transfers",
    "CREATE TABLE mine (id int)",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN END $$",
    "SET session_replication_role = replica",
    "TRUNCATE transfers, entries, conflicts",
    "TRUNCATE wallets CASCADE",
    "DELETE FROM transfers",
    "DELETE FROM entries",
    "DELETE FROM conflicts",
    "DELETE FROM wallets",
    "DELETE FROM players",
    "UPDATE transfers SET amount_minor = 1",
    "UPDATE entries SET amount_minor = 1",
    "UPDATE conflicts SET offered = ''",
    "UPDATE wallets SET player_id = 'ben'",
    "UPDATE players SET currency = 'USD'",
    "UPDATE sessions SET player_id = 'ben'",
    "UPDATE ledger SET epoch = epoch",
    "UPDATE alembic_version SET version_num = '0001'",
    "DELETE FROM verified_points",
)
FORBIDDEN = {
    "worker": (
        "INSERT INTO players VALUES ('carl', 'EUR', now())",
        "INSERT INTO wallets SELECT gen_random_uuid(), 'anna', 'USD', 'REAL', 5, 0",
        "UPDATE sessions SET closed_at = now()",
        "INSERT INTO verified_points SELECT 99, now(), true, NULL, NULL, 0",
    ),
    "operator": (
        "SELECT cache_key FROM ledger",
        "SELECT * FROM ledger",
        "INSERT INTO transfers SELECT * FROM transfers",
        "INSERT INTO entries SELECT * FROM entries",
        "UPDATE wallets SET balance_minor = 1",
        "SELECT * FROM wallets FOR UPDATE",
    ),
    "reader": (
        "SELECT cache_key FROM ledger",
        "SELECT ledger FROM ledger",
        "INSERT INTO players VALUES ('carl', 'EUR', now())",
        "INSERT INTO sessions VALUES ('gpas', 's', 'anna', 'EUR', now())",
        "INSERT INTO verified_points SELECT 99, now(), true, NULL, NULL, 0",
        "UPDATE wallets SET balance_minor = 1",
    ),
    "auditor": ("SELECT cache_key FROM ledger", "UPDATE wallets SET balance_minor = 1"),
}


@pytest.mark.parametrize("role", ROLES)
async def test_role_can_not_touch_what_is_posted_nor_what_guards_it(roles: Roles, role: str) -> None:
    engine = roles.engines[role]
    for statement in (*FORBIDDEN_TO_ALL, *FORBIDDEN[role]):
        with pytest.raises(DBAPIError, match=SAID_NO):
            await _execute(engine, statement)


@pytest.mark.parametrize("how", ["printed", "applied"])
async def test_right_that_was_given_by_hand_is_taken_again(roles: Roles, how: str) -> None:
    name = roles.names["reader"]
    await _execute(
        roles.owner,
        f'GRANT DELETE ON transfers TO "{name}"',
        f'GRANT UPDATE (balance_minor) ON wallets TO "{name}"',
        f'GRANT SELECT (cache_key) ON ledger TO "{name}"',
    )
    ended = await roles.command(*(["--apply"] if how == "applied" else []))
    assert ended.code == ExitCode.OK, ended
    if how == "printed":
        begin, *statements, commit = ended.out.splitlines()
        assert (begin, commit) == ("BEGIN;", "COMMIT;")
        await _execute(roles.owner, *statements)
    for statement in ("DELETE FROM transfers", *FORBIDDEN["reader"]):
        with pytest.raises(DBAPIError, match=SAID_NO):
            await _execute(roles.engines["reader"], statement)


@pytest.mark.parametrize("command", ["player add carl --currency EUR", "ledger epoch --bump"])
async def test_command_that_is_not_permitted_ends_as_with_wrong_settings(roles: Roles, command: str) -> None:
    ended = await run(roles.url_of("reader"), *command.split())
    assert "[ledger] database_url: " in (error := ended.error(ExitCode.SETTINGS))
    assert "permission denied for table" in error
    assert "a-password" not in error


async def test_only_the_owner_begins_an_epoch(roles: Roles) -> None:
    with pytest.raises(LedgerUnavailable, match="permission denied"):
        await Ledger(roles.engines["worker"]).bump_epoch()
    before = await Ledger(roles.owner).keyed_epoch()
    await Ledger(roles.owner).bump_epoch()
    after = await Ledger(roles.engines["worker"]).keyed_epoch()
    assert before.name != after.name
    assert before.cache_key != after.cache_key


@pytest.mark.parametrize("rights", [WORKER, OPERATOR, READER, AUDITOR])
def test_every_table_is_decided_on(rights: Rights) -> None:
    assert set(rights) == {*metadata.tables, "alembic_version"}


async def audit_entries(engine: AsyncEngine) -> list[AuditLine]:
    page = await list_audit(engine, AuditQuery(limit=500))
    return [entry for entry in reversed(page.entries) if entry.action != "ledger.migrate"]


async def test_what_a_role_was_given_is_written_down_with_it(roles: Roles) -> None:
    before = len(await audit_entries(roles.owner))
    refused = await run(roles.url, "grants", "--apply", "--worker", "nobody", "--as", "carla")
    assert refused.code == ExitCode.NO
    printed = await roles.command("--as", "carla")
    applied = await roles.command("--apply", "--as", "carla")
    assert (printed.code, applied.code) == (0, 0)
    (entry,) = (await audit_entries(roles.owner))[before:]
    assert (entry.actor, entry.via, entry.action) == ("carla", "cli", "ledger.grants")
    assert entry.detail["roles"] == {name: kind for kind, name in roles.names.items()}
    assert entry.login == roles.owner.url.username


FORGED = (
    "INSERT INTO audit_log (id, at, actor, via, action, subject, outcome, detail{more}) VALUES"
    " ('019b76da-a800-7000-8000-000000000000', '2026-01-01', 'carla', 'cli', 'dead.drop', 'message:1',"
    " 'done', '{{}}'{value})"
)


@pytest.mark.parametrize(("more", "value"), [("", ""), (", login", ", 'credits_owner'")])
async def test_operator_dates_no_entry_back_and_writes_none_as_another_login(
    roles: Roles, more: str, value: str
) -> None:
    began = datetime.now(UTC)
    await _execute(roles.engines["operator"], FORGED.format(more=more, value=value))
    forged = (await audit_entries(roles.owner))[-1]
    assert (forged.actor, forged.login) == ("carla", roles.names["operator"])
    assert forged.at >= began - timedelta(seconds=1), "of this machine's clock"
    assert moment_of(UUID(forged.entry_id)) == forged.at
    assert UUID(forged.entry_id).version == 7


UUID_OF_OWN = (
    "CREATE TYPE pg_temp.uuid AS (written text)",
    (
        "CREATE FUNCTION pg_temp.made(text) RETURNS pg_temp.uuid LANGUAGE sql"
        " AS $$ SELECT CAST(row('00000000-0000-7000-8000-000000000001') AS pg_temp.uuid) $$"
    ),
    "CREATE CAST (text AS pg_temp.uuid) WITH FUNCTION pg_temp.made(text)",
    (
        "CREATE FUNCTION pg_temp.read(pg_temp.uuid) RETURNS pg_catalog.uuid LANGUAGE sql"
        " AS $$ SELECT CAST(($1).written AS pg_catalog.uuid) $$"
    ),
    "CREATE CAST (pg_temp.uuid AS pg_catalog.uuid) WITH FUNCTION pg_temp.read(pg_temp.uuid) AS ASSIGNMENT",
)


async def test_operator_dates_no_entry_back_by_a_type_of_its_own(roles: Roles) -> None:
    """Nobody has revoked the right to make temporary types here, which PostgreSQL gives to all."""
    await _execute(roles.engines["operator"], *UUID_OF_OWN, FORGED.format(more="", value=""))
    forged = (await audit_entries(roles.owner))[-1]
    assert forged.actor == "carla"
    assert moment_of(UUID(forged.entry_id)) == forged.at


async def test_entries_of_one_transaction_keep_their_order(roles: Roles) -> None:
    actions = [Action.DEAD_DROP, Action.DEAD_SEND_BACK] * 100
    async with roles.engines["operator"].begin() as connection:
        for number, action in enumerate(actions):
            await record(connection, PROCESS, action, f"message:{number}", "done", {})
    written = (await audit_entries(roles.owner))[-len(actions) :]
    assert [entry.subject for entry in written] == [f"message:{number}" for number in range(len(actions))]


async def test_role_that_is_not_there_is_said(roles: Roles) -> None:
    ended = await run(roles.url, "grants", "--worker", "no such: role", "--apply")
    assert 'role "no such: role" does not exist' in ended.error(ExitCode.NO)


@pytest.mark.parametrize(
    "arguments", [(), ("--worker", "one", "--reader", "one"), ("--worker", "a\nb"), ("--worker", "")]
)
async def test_roles_must_be_named_and_differ(arguments: tuple[str, ...]) -> None:
    assert (await run("sqlite+aiosqlite://", "grants", *arguments)).code == ExitCode.USAGE


async def test_sqlite_has_no_roles() -> None:
    ended = await run("sqlite+aiosqlite://", "grants", "--worker", "one", "--apply")
    assert "only PostgreSQL has roles" in ended.error(ExitCode.NO)
