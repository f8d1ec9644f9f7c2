"""What pydantic finds wrong with settings, in one line that repeats no value: one of them may be a secret."""

from typing import Any, Final

from pydantic import ValidationError

DEFECTS_MAX: Final = 5
"""So many wrong values are named at once."""

KEY_CHARACTERS_MAX: Final = 64

_OF_A_KEY: Final = "[key]"
"""How pydantic ends the place of a key, where that and not its value is wrong."""


def describe(error: ValidationError, table: str = "") -> str:
    """Return pydantic's findings as one line, without the values: one of them may be a secret."""
    tables = table.split(".") if table else ()
    return "; ".join(defect for _, defect in defects_of(error, *tables))


def defects_of(error: ValidationError, *tables: str) -> list[tuple[list[str], str]]:
    """Return the first DEFECTS_MAX wrong values: the keys to each, and the same in words.

    `tables` are those that the keys are in. What is wrong with several tables together has no keys, and its
    words name the place.
    """
    found = error.errors(include_input=False, include_url=False)[:DEFECTS_MAX]
    return [([_key(part) for part in each["loc"]], _defect(each, tables)) for each in found]


def _defect(found: Any, tables: tuple[str, ...]) -> str:
    parts = (*tables, *found["loc"])
    return f"{place_of(*parts)}: {_words(found)}" if parts else _words(found)


def place_of(*parts: int | str) -> str:
    """Return a place as the documents name it.

    >>> place_of("broker", "url"), place_of("operator", "users", "ben", "token_sha256", 0), place_of("log")
    ('[broker] url', '[operator.users.ben] token_sha256, number 1', '[log]')
    """
    numbers = [f", number {part + 1}" for part in parts if isinstance(part, int)]
    *tables, key = [_key(part) for part in parts if not isinstance(part, int) and part != _OF_A_KEY]
    return (f"[{'.'.join(tables)}] {key}" if tables else f"[{key}]") + "".join(numbers)


def _key(part: int | str) -> str:
    """Return one key of a place as printable text: keys are the operator's own, and may be anything."""
    text = str(part)[:KEY_CHARACTERS_MAX]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _words(defect: Any) -> str:
    if defect["type"] == "extra_forbidden":
        return "there is no such setting"
    return " ".join(str(defect["msg"]).removeprefix("Value error, ").split())
