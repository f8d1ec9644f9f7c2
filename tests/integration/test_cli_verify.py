"""`verify` as operators and their scripts call it: what it says that it has read, and how far it is."""

import asyncio
import os
import pty
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.bench.books import fill
from tests.support.commands import INHERITED
from tests.support.paths import ROOT
from worker.cli.exit_codes import ExitCode
from worker.cli.progress import LINE_SECONDS, line_reporter

pytestmark = [pytest.mark.slow, pytest.mark.any_server]


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncEngine:
    await fill(engine, 1_000, 10)
    return engine


async def verify(engine: AsyncEngine, *options: str, stderr: int = subprocess.PIPE) -> Any:
    url = engine.url.render_as_string(hide_password=False)
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "worker", "verify", *options],
        cwd=ROOT,
        env={**INHERITED, "CREDITS_CONFIG": "", "CREDITS_LEDGER__DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=stderr,
        check=False,
        timeout=60,
    )


async def test_programs_are_told_in_one_object_what_was_read(books: AsyncEngine) -> None:
    answers = []
    for options in ((), (), ("--full",)):
        ended = await verify(books, "--json", *options)
        assert (ended.returncode, ended.stderr, ended.stdout.count(b"\n")) == (ExitCode.OK, b"", 1)
        answers.append(msgspec.json.decode(ended.stdout))
    first, second, full = (answer["coverage"] for answer in answers)
    assert [c["mode"] for c in (first, second, full)] == ["full", "incremental", "full"]
    assert [c["since"] for c in (first, second, full)] == [None, first["read_at"], None]
    assert first["from_transfer_id"] is full["from_transfer_id"] is None
    assert second["from_transfer_id"] < second["to_transfer_id"] == full["to_transfer_id"]
    assert all(c["is_verified_point"] and c["not_kept"] is None for c in (first, second, full))


async def test_people_are_told_what_an_incremental_audit_does_not_prove(books: AsyncEngine) -> None:
    assert (await verify(books)).stdout.startswith(b"full: all that the books held at ")
    incremental = await verify(books)
    assert incremental.stdout.startswith(b"incremental: what came since ")
    assert b"--full alone proves" in incremental.stdout
    assert incremental.stderr == b"", "it was quick"


async def test_broken_books_are_told_with_where_the_next_audit_begins(books: AsyncEngine) -> None:
    first = msgspec.json.decode((await verify(books, "--json")).stdout)
    async with books.begin() as connection:
        await connection.execute(text("UPDATE wallets SET version = version + 1 WHERE kind = 'REAL'"))
    for _ in range(2):
        ended = await verify(books, "--json")
        audit = msgspec.json.decode(ended.stdout)
        assert (ended.returncode, audit["coverage"]["is_verified_point"]) == (ExitCode.NO, False)
        assert audit["coverage"]["since"] == first["coverage"]["read_at"]
        (finding,) = [f for f in audit["findings"] if f["broken"]]
        assert (finding["invariant"], finding["broken"], len(finding["cases"])) == ("wallet_balance", 10, 10)


async def test_database_that_can_only_be_read_is_audited(postgres: AsyncEngine) -> None:
    await fill(postgres, 100, 10)
    async with postgres.begin() as connection:
        database = (await connection.execute(text("SELECT current_database()"))).scalar_one()
        await connection.execute(text(f"ALTER DATABASE {database} SET default_transaction_read_only = on"))
    ended = await verify(postgres)
    assert ended.returncode == ExitCode.OK
    assert b"the next audit will not build on this one: cannot execute INSERT" in ended.stdout


async def test_terminal_shows_a_bar(books: AsyncEngine) -> None:
    ours, theirs = pty.openpty()
    try:
        ended = await verify(books, "--full", stderr=theirs)
        shown = os.read(ours, 100_000)
        assert (ended.returncode, b"%" in shown) == (ExitCode.OK, True)
        ended = await verify(books, "--full", "--json", stderr=theirs)
        os.set_blocking(ours, False)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)
    finally:
        os.close(ours)
        os.close(theirs)


def test_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    report = line_reporter("verify", clock=lambda: now)
    for second in range(61):
        now = float(second)
        report(second / 100, "legs")
    assert capsys.readouterr().err.splitlines() == [
        "verify: 30% done, now legs",
        "verify: 60% done, now legs",
    ]
    assert LINE_SECONDS == 30
