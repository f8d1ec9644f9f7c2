"""What each role needs of PostgreSQL, and nothing more: the SQL that grants it.

Tables belong to the role that migrates. The others can't alter or empty a table, nor switch its triggers off,
because only an owner can; they can't change or delete what was posted, because they are never granted it.

Every table is in every list, so that a new one is decided on; a test demands it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database.faults import outages_as_unavailable
from worker.database.transactions import transaction

Rights = Mapping[str, tuple[str, ...]]
"""By table: what may be done to it, in SQL's words."""

_READ: Final = ("SELECT",)
_EPOCH_ONLY: Final = ("SELECT (id, epoch, cell)",)
"""Not the key of cached values: whoever can read that can forge them."""

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
"""`worker run`: it posts."""

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
"""`worker operator`, and the commands `player`, `session` and `dead`: what they change is written down."""

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
"""Support's own SQL, and every command that shows something."""

AUDITOR: Final[Rights] = {
    **READER,
    "verified_points": ("SELECT", "INSERT"),
    "verified_wallets": ("SELECT", "INSERT", "UPDATE (version, balance_minor)"),
}
"""`verify`, which keeps where it was: a worker that could would tell it what to pass over."""


KINDS: Final[Mapping[str, Rights]] = {
    "worker": WORKER,
    "operator": OPERATOR,
    "reader": READER,
    "auditor": AUDITOR,
}


def grants(rights_by_role: Mapping[str, Rights]) -> Iterator[str]:
    """Yield the statements, for the tables' owner, that give each role these rights and take all others."""
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
    """Carry the statements out, and write that down, in one transaction.

    Raises LedgerUnavailable, or DBAPIError if refused.
    """
    kinds = {role: _kind(rights) for role, rights in rights_by_role.items()}
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            for statement in grants(rights_by_role):
                await connection.execute(text(statement.replace(":", r"\:")))
            await record(connection, by, Action.GRANTS, LEDGER, "granted", {"roles": kinds})


def _kind(rights: Rights) -> str:
    return next(kind for kind, known in KINDS.items() if known is rights)
