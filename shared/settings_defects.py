"""Turns pydantic's validation errors into one line without values, because a value may be a secret."""

from typing import Any, Final

from pydantic import ValidationError

DEFECTS_MAX: Final = 5
"""The number of wrong values that one message names."""

KEY_CHARACTERS_MAX: Final = 64

_KEY_MARKER: Final = "[key]"
"""The last part of pydantic's location when a key is wrong rather than its value."""


def describe(error: ValidationError, table: str = "") -> str:
    """Return a validation error as one line; `table` is the table that was validated."""
    tables = table.split(".") if table else ()
    return "; ".join(defect for _, defect in defects_of(error, *tables))


def defects_of(error: ValidationError, *tables: str) -> list[tuple[list[str], str]]:
    """Return the first DEFECTS_MAX wrong values, each as its path of keys and a message.

    `tables` is the path of the validated table. An error about several tables together has no keys, and its
    message names them.
    """
    found = error.errors(include_input=False, include_url=False)[:DEFECTS_MAX]
    return [([_key(part) for part in each["loc"]], _defect(each, tables)) for each in found]


def _defect(found: Any, tables: tuple[str, ...]) -> str:
    parts = (*tables, *found["loc"])
    return f"{setting_path(*parts)}: {_message(found)}" if parts else _message(found)


def setting_path(*parts: int | str) -> str:
    """Return a setting's location as the documentation writes it.

    >>> setting_path("broker", "url"), setting_path("operator", "users", "ben", "token_sha256", 0), setting_path("log")
    ('[broker] url', '[operator.users.ben] token_sha256, number 1', '[log]')
    """
    numbers = [f", number {part + 1}" for part in parts if isinstance(part, int)]
    *tables, key = [_key(part) for part in parts if not isinstance(part, int) and part != _KEY_MARKER]
    return (f"[{'.'.join(tables)}] {key}" if tables else f"[{key}]") + "".join(numbers)


def _key(part: int | str) -> str:
    """Return one key as printable text: an operator's keys may contain any character."""
    text = str(part)[:KEY_CHARACTERS_MAX]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _message(defect: Any) -> str:
    if defect["type"] == "extra_forbidden":
        return "there is no such setting"
    return " ".join(str(defect["msg"]).removeprefix("Value error, ").split())
