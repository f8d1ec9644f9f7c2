"""Pages of long lists: each page comes with a cursor, opaque to the client, from which the next one starts.

A cursor holds the id of the last row shown, not a number of rows to skip. So whatever is posted between two
requests, no row of the list is shown twice, and none that was there at the first request is left out.

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
"""The Base64 of 24 bytes: 8 that identify the list, and the last row's id of 16."""

View = TypeVar("View")


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a part of a list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX, description="The most rows of a page.")] = LIMIT_DEFAULT
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


def write_cursor(list_key: Sequence[str], last: UUID) -> str:
    """Return the cursor for the rows after `last` in the list that `list_key` identifies."""
    return urlsafe_b64encode(_list_digest(list_key) + last.bytes).decode()


def read_cursor(list_key: Sequence[str], cursor: str) -> UUID:
    """Return the id of the row that a cursor follows. Raises CursorError if it is of another list, or malformed."""
    if _CURSOR.fullmatch(cursor) is None:
        raise CursorError("this is no cursor")
    content = urlsafe_b64decode(cursor)
    if content[:_LIST_BYTES] != _list_digest(list_key):
        raise CursorError("the cursor is of another list")
    return UUID(bytes=content[_LIST_BYTES:])


def cut_page(
    list_key: Sequence[str], rows: Sequence[Row[Any]], limit: int, view: Callable[[Row[Any]], View]
) -> tuple[list[View], str | None]:
    """Return the views of the first `limit` rows, and the cursor of the next page if there are further rows."""
    shown = rows[:limit]
    return [view(row) for row in shown], write_cursor(list_key, shown[-1].id) if len(rows) > limit else None


def _list_digest(list_key: Sequence[str]) -> bytes:
    return blake2b(msgspec.msgpack.encode(list_key), digest_size=_LIST_BYTES).digest()
