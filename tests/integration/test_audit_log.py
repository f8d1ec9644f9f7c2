"""Who changed what is written down with the change, by name, and stays as it was written."""

import asyncio
import json
import os
import pwd
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from tests.support.commands import ON_SQLITE, Run
from tests.support.credits import win
from tests.support.operator_api import settings_for
from worker.cli.dead_letter_audit import audited
from worker.cli.exit_codes import ExitCode
from worker.database.audit_log import Action, Actor, Via, session_subject
from worker.database.migrate import migrate
from worker.ledger.transaction import Ledger
from worker.messaging.dead_letters import DeadLetter
from worker.players import add_player, close_session, open_session
from worker.queries.audit_entries import AuditLine, AuditQuery, list_audit
from worker.queries.queries import show_player

BEN = Actor("ben", Via.API)
OS_USER = pwd.getpwuid(os.getuid()).pw_name
SECRET = "session-that-opens-a-wallet"


async def entries_of(engine: AsyncEngine) -> list[AuditLine]:
    """Return all entries but the migration's, oldest first."""
    page = await list_audit(engine, AuditQuery(limit=500))
    return [entry for entry in reversed(page.entries) if entry.action != "ledger.migrate"]


async def test_each_change_and_each_refused_attempt_is_written_down(engine: AsyncEngine) -> None:
    for _ in range(2):  # the second time nothing changes, and nothing is written
        await add_player(engine, "anna", "EUR", by=BEN)
        await open_session(engine, "gpas", SECRET, "anna", by=BEN)
    await open_session(engine, "gpas", SECRET, "nobody", by=BEN)
    for _ in range(2):
        await close_session(engine, "gpas", SECRET, by=BEN)
    await close_session(engine, "gpas", "none", by=BEN)
    epoch = await Ledger(engine).bump_epoch(by=BEN)
    written, session = await entries_of(engine), session_subject("gpas", SECRET)
    assert [(e.action, e.subject, e.outcome, e.detail) for e in written] == [
        ("player.add", "player:anna", "player", {"currency": "EUR"}),
        ("session.open", session, "opened", {"player_id": "anna", "currency": None}),
        ("session.open", session, "unknown_player", {"player_id": "nobody", "currency": None}),
        ("session.close", session, "closed", {}),
        ("session.close", session_subject("gpas", "none"), "unknown_session", {}),
        ("ledger.epoch", "ledger", "begun", {"epoch": epoch}),
    ]
    assert {(e.actor, e.via) for e in written} == {("ben", "api")}
    assert SECRET not in repr(written)


async def test_migration_is_written_down_once(engine: AsyncEngine) -> None:
    await migrate(engine, by=BEN)  # there is nothing to do
    (entry,) = (await list_audit(engine, AuditQuery())).entries
    assert (entry.actor, entry.via, entry.action) == ("credits", "process", "ledger.migrate")
    assert entry.detail["from"] is None


NO_MORE = {
    "postgresql": "ALTER TABLE audit_log ADD CONSTRAINT full_up CHECK (actor <> 'ben')",
    "sqlite": "CREATE TRIGGER full_up BEFORE INSERT ON audit_log WHEN NEW.actor = 'ben'"
    " BEGIN SELECT RAISE(ABORT, 'full_up'); END",
}


async def test_what_can_not_be_written_down_does_not_happen(engine: AsyncEngine) -> None:
    await add_player(engine, "anna", "EUR")
    await open_session(engine, "gpas", "s", "anna")
    epoch = await Ledger(engine).epoch()
    async with engine.begin() as connection:
        await connection.execute(text(NO_MORE[engine.dialect.name]))
    for change in (
        lambda: add_player(engine, "carl", "EUR", by=BEN),
        lambda: open_session(engine, "gpas", "t", "anna", by=BEN),
        lambda: close_session(engine, "gpas", "s", by=BEN),
        lambda: Ledger(engine).bump_epoch(by=BEN),
    ):
        with pytest.raises(DBAPIError, match="full_up"):
            await change()
    assert await show_player(engine, Currencies(), "carl") is None
    assert await Ledger(engine).epoch() == epoch
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT id, closed_at FROM sessions"))
        assert [tuple(row) for row in found] == [("s", None)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log",
        "TRUNCATE audit_log",
    ],
)
async def test_entry_is_never_changed(engine: AsyncEngine, change: str) -> None:
    await add_player(engine, "anna", "EUR", by=BEN)
    before = await list_audit(engine, AuditQuery())
    # Of the last two, each database knows the words of one.
    with pytest.raises(DBAPIError, match=r"append-only|syntax error"):
        async with engine.begin() as connection:
            await connection.execute(text(change))
    assert await list_audit(engine, AuditQuery()) == before


async def test_walk_through_a_part_of_the_log_has_no_hole_and_no_repeat(engine: AsyncEngine) -> None:
    carl = Actor("carl", Via.API)
    for n in range(7):
        await add_player(engine, f"p-{n}", "EUR", by=BEN)
        await add_player(engine, f"q-{n}", "EUR", by=carl)
    cursor, subjects = None, []
    while True:
        page = await list_audit(engine, AuditQuery(3, cursor, actor="ben"))
        subjects += [entry.subject for entry in page.entries]
        if (cursor := page.next_cursor) is None:
            break
    assert subjects == [f"player:p-{n}" for n in reversed(range(7))]


async def test_log_is_read_from_a_moment_on(engine: AsyncEngine) -> None:
    for player_id in ("anna", "ben", "carl"):
        await add_player(engine, player_id, "EUR")
    written = await entries_of(engine)
    found = await list_audit(engine, AuditQuery(since=written[1].at))
    assert {entry.subject for entry in found.entries} >= {"player:ben", "player:carl"}
    assert all(entry.at >= written[1].at for entry in found.entries)


@ON_SQLITE
async def test_what_was_done_to_a_message_is_written_down_if_it_can_not_be_printed(
    engine: AsyncEngine,
) -> None:
    message = DeadLetter("0123456789ab", "of ours", None, None, True, [win("w" * 999)], "", b"")  # noqa: FBT003

    def drop_it() -> None:
        chosen = {message.id: message}
        with audited(settings_for(engine), BEN, Action.DEAD_DROP, chosen) as done:
            done.append(message)
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await asyncio.to_thread(drop_it)
    written = await entries_of(engine)
    assert [(e.action, e.subject, e.outcome) for e in written] == [
        ("dead.drop", "message:0123456789ab", outcome) for outcome in ("begun", "done")
    ]
    assert [len(c["provider_tx_id"]) for e in written for c in e.detail["credits"]] == [256, 256]


@pytest.mark.slow
@ON_SQLITE
async def test_command_line_names_who_acts(worker: Run) -> None:
    await worker("player", "add", "ben", "--currency", "EUR", "--as", "Karla K.")
    await worker("player", "add", "carl", "--currency", "EUR", CREDITS_ACTOR="deployment")
    await worker("session", "open", SECRET, "--integration", "gpas", "--player", "ben")
    await worker("ledger", "epoch", "--bump")
    listed: dict[str, Any] = (await worker("audit", "list", "--json")).json()
    newest_first = [(e["actor"], e["via"], e["action"], e["detail"].get("os_user")) for e in listed["entries"]]
    assert newest_first[:4] == [
        (OS_USER, "cli", "ledger.epoch", None),
        (OS_USER, "cli", "session.open", None),
        ("deployment", "cli", "player.add", OS_USER),
        ("Karla K.", "cli", "player.add", OS_USER),
    ]
    assert SECRET not in json.dumps(listed)


@pytest.mark.slow
@ON_SQLITE
async def test_support_finds_what_became_of_a_player_and_a_session(worker: Run) -> None:
    await worker("session", "open", SECRET, "--integration", "gpas", "--player", "anna")
    session = (SECRET, "--integration", "gpas")
    found = (await worker("audit", "list", "--session", *session, "--json")).json()
    assert [e["action"] for e in found["entries"]] == ["session.open"]
    found = (await worker("audit", "list", "--subject", "player:anna", "--json")).json()
    assert [(e["action"], e["actor"], e["via"]) for e in found["entries"]] == [("player.add", "credits", "process")]
    assert (await worker("audit", "list", "--since", "2100-01-01")).out == "none\n"
    for wrong in (("--since", "yesterday"), ("--session", SECRET), ("--action", "nothing"), ("--actor", "")):
        assert (await worker("audit", "list", *wrong)).code == ExitCode.USAGE
    assert "--cursor" in (await worker("audit", "list", "--cursor", "x")).error(ExitCode.USAGE)
