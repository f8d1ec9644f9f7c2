"""Auditing books that a test has broken by hand."""

# ruff: noqa: S608  (the statements are this file's own)

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from shared.money import Currencies
from worker.verify import Audit, verify


async def audit_of(engine: AsyncEngine, *, full: bool = False) -> Audit:
    return await verify(engine, Currencies(), full=full)


def broken(audit: Audit) -> dict[str, int]:
    """Return in how many cases each invariant is broken, those that hold left out."""
    return {finding.invariant: finding.broken for finding in audit.findings if finding.broken}


async def unprotect(engine: AsyncEngine) -> None:
    """Take every trigger, constraint and index away: copy the tables' rows into bare tables."""
    async with engine.begin() as connection:
        for table in ("conflicts", "entries", "transfers", "wallets"):
            await connection.execute(text(f"CREATE TABLE bare AS SELECT * FROM {table}"))
            await connection.execute(text(f"DROP TABLE {table}"))
            await connection.execute(text(f"ALTER TABLE bare RENAME TO {table}"))


async def change(engine: AsyncEngine, *statements: str) -> None:
    """Change books by hand; each statement must find something to change."""
    async with engine.begin() as connection:
        for statement in statements:
            assert (await connection.execute(text(statement))).rowcount > 0, statement


def of(provider_tx_id: str) -> str:
    """Return SQL for a transfer's id."""
    return f"(SELECT id FROM transfers WHERE provider_tx_id = '{provider_tx_id}')"


def wallet(player_id: str, kind: str) -> str:
    """Return SQL for a wallet's id."""
    return f"(SELECT id FROM wallets WHERE player_id = '{player_id}' AND kind = '{kind}')"


def set_worker_clock(monkeypatch: pytest.MonkeyPatch, behind: timedelta) -> None:
    """Let workers make ids by a clock that is wrong."""
    millis = behind // timedelta(milliseconds=1)
    monkeypatch.setattr("worker.ledger.planner.uuid7", lambda: UUID(int=uuid7().int - (millis << 80)))
