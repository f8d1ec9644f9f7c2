"""The rights that each role needs in PostgreSQL, and no others, as SQL that grants them.

The role that migrates owns the tables. Only an owner can alter or truncate a table or disable its triggers;
and no role has the right to change or delete rows that were posted.

Every list has every table, and a test checks that, so that nobody forgets to decide on the rights of a new one.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database.faults import outages_as_unavailable
from worker.database.transactions import transaction

Rights = Mapping[str, tuple[str, ...]]
"""The privileges on each table, in SQL."""

_READ: Final = ("SELECT",)
_EPOCH_ONLY: Final = ("SELECT (id, epoch, cell)",)
"""Without the key of cached values: a user who can read it can forge them."""

WORKER: Final[Rights] = {
    "alembic_version": _READ,
    "ledger": _READ,
    "served_integrations": _READ,
    "players": _READ,
    "sessions": _READ,
    "wallets": ("SELECT", "UPDATE (balance_minor, version)"),
    "transfers": ("SELECT", "INSERT"),
    "entries": ("SELECT", "INSERT"),
    "conflicts": ("SELECT", "INSERT"),
    "verified_points": _READ,
    "verified_wallets": _READ,
    "audit_log": (),
}
"""For `worker run`, which posts."""

OPERATOR: Final[Rights] = {
    "alembic_version": _READ,
    "ledger": _EPOCH_ONLY,
    "served_integrations": _READ,
    "players": ("SELECT", "INSERT"),
    "sessions": ("SELECT", "INSERT", "UPDATE (closed_at)"),
    "wallets": ("SELECT", "INSERT"),
    "transfers": _READ,
    "entries": _READ,
    "conflicts": _READ,
    "verified_points": (),
    "verified_wallets": (),
    "audit_log": ("SELECT", "INSERT"),
}
"""For `worker operator`, and the commands `player`, `session` and `dead`, whose changes go to the audit log."""

READER: Final[Rights] = {
    "alembic_version": _READ,
    "ledger": _EPOCH_ONLY,
    "served_integrations": _READ,
    "players": _READ,
    "sessions": _READ,
    "wallets": _READ,
    "transfers": _READ,
    "entries": _READ,
    "conflicts": _READ,
    "verified_points": _READ,
    "verified_wallets": _READ,
    "audit_log": _READ,
}
"""For support's own SQL, and every command that shows something."""

AUDITOR: Final[Rights] = {
    **READER,
    "verified_points": ("SELECT", "INSERT"),
    "verified_wallets": ("SELECT", "INSERT", "UPDATE (version, balance_minor)"),
}
"""For `verify`, which saves its point. A worker may not: it could mark rows as verified that no audit has read."""


KINDS: Final[Mapping[str, Rights]] = {
    "worker": WORKER,
    "operator": OPERATOR,
    "reader": READER,
    "auditor": AUDITOR,
}


def grants(rights_by_role: Mapping[str, Rights]) -> Iterator[str]:
    """Yield the statements, to be run by the tables' owner, that grant each role its rights and revoke all others."""
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    yield f"REVOKE ALL ON {', '.join(WORKER)} FROM PUBLIC"
    for name, rights in rights_by_role.items():
        role = _quoted(name)
        yield f"REVOKE ALL ON {', '.join(rights)} FROM {role}"
        yield f"GRANT USAGE ON SCHEMA public TO {role}"
        for table, allowed in rights.items():
            if allowed:
                yield f"GRANT {', '.join(allowed)} ON {table} TO {role}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def grant(engine: AsyncEngine, rights_by_role: Mapping[str, Rights], *, by: Actor = PROCESS) -> None:
    """Execute the statements and record that in the audit log, in one transaction.

    Raises LedgerUnavailable, or DBAPIError if the database refuses.
    """
    kinds = {role: _kind(rights) for role, rights in rights_by_role.items()}
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            for statement in grants(rights_by_role):
                await connection.execute(text(statement.replace(":", r"\:")))
            await record(connection, by, Action.GRANTS, LEDGER, "granted", {"roles": kinds})


def _kind(rights: Rights) -> str:
    return next(kind for kind, known in KINDS.items() if known is rights)
