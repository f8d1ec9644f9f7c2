r"""What is an id: one rule at every door, so that what can be paid can be looked up.

An id is any text of 1 to 128 characters without ASCII control characters, compared to the letter. Players,
sessions and transfers have ids; so have rounds, games and bets, which may be up to 1,000 characters long.
The rule names what is refused, not what is printable: that differs from one version of Unicode to the next,
and an id that was paid must be found by every version.

>>> is_id("anna/50%"), is_id(""), is_id("two\nlines"), is_id("x" * 129)
(True, False, False, False)
"""

import re
from typing import Final

ID_CHARACTERS_MAX: Final = 128
ROUND_ID_CHARACTERS_MAX: Final = 1_000
ROUND_ID_BYTES_MAX: Final = 2_000
"""PostgreSQL's index of rounds holds 2,704 bytes of round and player; a player's id has up to 512."""

_CONTROLS: Final = r"\x00-\x1F\x7F"
ID_PATTERN: Final = rf"\A[^{_CONTROLS}]+\Z"
"""The rule for schemas whose texts come from UTF-8 and so hold no surrogates."""

ID_JSON_PATTERN: Final = rf"^[^{_CONTROLS}]+$"
"""The same as a JSON schema writes it."""

ROUND_ID_JSON_PATTERN: Final = r"^[^\x00]+$"
"""The rule for an id of a round, likewise."""

# A lone surrogate is how Python reads a byte of a command line that is no UTF-8: no database can store it.
_ID: Final = re.compile(rf"[^{_CONTROLS}\ud800-\udfff]+")
_ROUND_ID: Final = re.compile(r"[^\x00\ud800-\udfff]+")


def is_printable(text: str) -> bool:
    """Tell whether a text of any length can be stored and looked up: some characters, and none of control."""
    # What Python calls printable has none of these in any version of Unicode; most texts are, and told fast.
    return (text.isprintable() and text != "") or _ID.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Tell whether a text is an id of a player, a session, a transfer or an integration."""
    return len(text) <= ID_CHARACTERS_MAX and is_printable(text)


def refuse_id(text: str) -> str | None:
    """Return what is wrong with an id of a player, a session, a transfer or an integration, or None."""
    if is_id(text):
        return None
    return f"an id has 1 to {ID_CHARACTERS_MAX} characters, none of them a control character"


def refuse_round_id(text: str) -> str | None:
    """Return what is wrong with an id of a round, or None.

    Control characters other than NUL are taken: rounds have been paid that have them in their ids.
    """
    if len(text) <= ROUND_ID_CHARACTERS_MAX and _ROUND_ID.fullmatch(text) is not None:
        return None
    return f"an id of a round has 1 to {ROUND_ID_CHARACTERS_MAX} characters, none of them NUL"


def storable_round_id(text: str | None) -> str | None:
    """Return the id of a round, or None for one that no index can hold: its win is paid without it."""
    if text is None or len(text) * 4 <= ROUND_ID_BYTES_MAX or len(text.encode()) <= ROUND_ID_BYTES_MAX:
        return text
    return None
