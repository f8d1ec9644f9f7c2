r"""Defines what an id is: one rule for all interfaces, so that every id that can be paid can be looked up.

An id is any text of 1 to 128 characters without ASCII control characters; comparison is exact. Players, sessions
and transfers have such ids. Ids of rounds, games and bets may have up to 1,000 characters.
The rule lists the characters that are refused, and does not ask for printable ones: those differ between
versions of Unicode, and an id that was paid must be found by every version.

>>> is_id("anna/50%"), is_id(""), is_id("two\nlines"), is_id("x" * 129)
(True, False, False, False)
"""

import re
from typing import Final

ID_CHARACTERS_MAX: Final = 128
ROUND_ID_CHARACTERS_MAX: Final = 1_000
ROUND_ID_BYTES_MAX: Final = 2_000
"""PostgreSQL's index of rounds holds 2,704 bytes of round and player id; a player's id has up to 512."""

_CONTROLS: Final = r"\x00-\x1F\x7F"
ID_PATTERN: Final = rf"\A[^{_CONTROLS}]+\Z"
"""The rule for schemas, whose texts are decoded from UTF-8 and so contain no surrogates."""

ID_JSON_PATTERN: Final = rf"^[^{_CONTROLS}]+$"
"""The same as a JSON schema writes it."""

ROUND_ID_JSON_PATTERN: Final = r"^[^\x00]+$"
"""The rule for an id of a round, likewise."""

# Python decodes a non-UTF-8 byte of a command line to a lone surrogate, which no database can store.
_ID: Final = re.compile(rf"[^{_CONTROLS}\ud800-\udfff]+")
_ROUND_ID: Final = re.compile(r"[^\x00\ud800-\udfff]+")


def is_printable(text: str) -> bool:
    """Return whether a text of any length can be stored and looked up: it isn't empty and has no control characters."""
    # Python's printable texts contain none of these in any version of Unicode, and isprintable() is fast.
    return (text.isprintable() and text != "") or _ID.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Return whether a text is an id of a player, a session, a transfer or an integration."""
    return len(text) <= ID_CHARACTERS_MAX and is_printable(text)


def refuse_id(text: str) -> str | None:
    """Return what is wrong with an id of a player, a session, a transfer or an integration, or None."""
    if is_id(text):
        return None
    return f"an id has 1 to {ID_CHARACTERS_MAX} characters, none of them a control character"


def refuse_round_id(text: str) -> str | None:
    """Return what is wrong with a round id, or None.

    Control characters other than NUL are accepted, because rounds with them in their ids have been paid.
    """
    if len(text) <= ROUND_ID_CHARACTERS_MAX and _ROUND_ID.fullmatch(text) is not None:
        return None
    return f"an id of a round has 1 to {ROUND_ID_CHARACTERS_MAX} characters, none of them NUL"


def storable_round_id(text: str | None) -> str | None:
    """Return a round id, or None for one that is too long for the index: its win is paid without it."""
    if text is None or len(text) * 4 <= ROUND_ID_BYTES_MAX or len(text.encode()) <= ROUND_ID_BYTES_MAX:
        return text
    return None
