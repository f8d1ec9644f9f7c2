"""docs/reference/schema.md, from the tables' definitions."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql

from tests.support.reference.markdown import bullet, described, section, sentence
from tests.support.reference.markdown import page as render
from worker.database.schema import REVISION, metadata

INTRODUCTION: Final = f"""
The tables of version {REVISION}, as PostgreSQL has them; on SQLite they are the same in its types. Amounts are integers
in minor units, up to 18 digits. `python -m worker migrate` makes and alters them. Read them with your own SQL as
the reader's role of [security](../operations/security.md#postgresql); nothing but the worker writes money.

Triggers hold what constraints can't: transfers, entries, conflicts and the audit log are never changed or deleted, an
entry is on a wallet of its transfer's player, currency and kind, and the entries of a transfer sum to zero.
"""

_POSTGRES: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


def page() -> str:
    """Return the page."""
    return render("Tables", INTRODUCTION, [_table(table) for table in metadata.tables.values()])


def _table(table: Table) -> str:
    about = described(table.comment or table.info.get("description"), table.name)
    items = [*map(_column, table.columns), *_rules(table)]
    return section(f"`{table.name}`", sentence(about[:1].upper() + about[1:]), items)


def _column(column: Column[object]) -> str:
    type_ = column.type.compile(dialect=_POSTGRES).removesuffix(' COLLATE "C"').lower()
    facts = [type_, *(["primary key"] if column.primary_key else []), *(["null"] if column.nullable else [])]
    return bullet(f"**`{column.name}`** ({', '.join(facts)}){f': {column.comment}' if column.comment else ''}")


def _rules(table: Table) -> Iterator[str]:
    for constraint in sorted(table.constraints, key=lambda each: str(each.name)):
        if isinstance(constraint, UniqueConstraint):
            yield bullet(f"unique: {_names(constraint.columns)}")
        elif isinstance(constraint, CheckConstraint):
            yield bullet(f"check: `{constraint.sqltext}`")
        elif isinstance(constraint, ForeignKeyConstraint) and constraint._ddl_if is None:  # noqa: SLF001
            yield bullet(f"{_names(constraint.columns)} refers to `{constraint.referred_table.name}`")
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        condition = index.dialect_options["postgresql"]["where"]
        where = "" if condition is None else f" where `{condition}`"
        yield bullet(f"{'unique index' if index.unique else 'index'}: {_names(index.columns)}{where}")


def _names(columns: object) -> str:
    assert hasattr(columns, "__iter__")
    return ", ".join(f"`{column.name}`" for column in columns)
