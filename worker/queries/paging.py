"""Long lists, a page at a time: a cursor, opaque to whoever gets it, says where the next one begins.

A page is bounded by the last transfer shown, never by a number of rows to pass over: whatever is posted
meanwhile, no transfer of the list is shown twice, and none that was posted before the walk is left out.

>>> from uuid import UUID
>>> cursor = write_cursor(("player", "anna"), UUID("0192f0c1-2d3e-7f00-8123-456789abcdef"))
>>> cursor
'xTzyrrvMYRcBkvDBLT5_AIEjRWeJq83v'
>>> read_cursor(("player", "anna"), cursor)
UUID('0192f0c1-2d3e-7f00-8123-456789abcdef')
>>> read_cursor(("player", "ben"), cursor)
Traceback (most recent call last):
shared.errors.CursorError: the cursor is of another list
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import Row

from shared.errors import CursorError

LIMIT_MAX: Final = 500
LIMIT_DEFAULT: Final = 50

_LIST_BYTES: Final = 8
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{32}")
"""24 bytes: 8 that name the list, 16 of the last transfer's id."""

View = TypeVar("View")


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list is wanted."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX, description="At most so many.")] = LIMIT_DEFAULT
    cursor: (
        Annotated[
            str,
            msgspec.Meta(
                description="The last page's `next_cursor`.",
                extra_json_schema={"pattern": f"^{_CURSOR.pattern}$"},
            ),
        ]
        | None
    ) = None


def write_cursor(of: Sequence[str], last: UUID) -> str:
    """Return the cursor that follows the transfer `last` in the list that `of` names."""
    return urlsafe_b64encode(_list_name(of) + last.bytes).decode()


def read_cursor(of: Sequence[str], cursor: str) -> UUID:
    """Return the id of the transfer that a cursor follows. Raises CursorError."""
    if _CURSOR.fullmatch(cursor) is None:
        raise CursorError("this is no cursor")
    content = urlsafe_b64decode(cursor)
    if content[:_LIST_BYTES] != _list_name(of):
        raise CursorError("the cursor is of another list")
    return UUID(bytes=content[_LIST_BYTES:])


def cut(
    of: Sequence[str], rows: Sequence[Row[Any]], limit: int, view: Callable[[Row[Any]], View]
) -> tuple[list[View], str | None]:
    """Return the views of at most `limit` rows, and the cursor for what follows if a row is left over."""
    shown = rows[:limit]
    return [view(row) for row in shown], write_cursor(of, shown[-1].id) if len(rows) > limit else None


def _list_name(of: Sequence[str]) -> bytes:
    return blake2b(msgspec.msgpack.encode(of), digest_size=_LIST_BYTES).digest()
