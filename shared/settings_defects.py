"""What pydantic finds wrong with settings, in one line that repeats no value: one of them may be a secret."""

from typing import Any, Final

from pydantic import ValidationError

DEFECTS_MAX: Final = 5
"""So many wrong values are named at once."""

KEY_CHARACTERS_MAX: Final = 64


def describe(error: ValidationError, table: str = "") -> str:
    """Return pydantic's findings as one line, without the values: one of them may be a secret."""
    return "; ".join(f"[{table}] " * bool(table) + defect for _, defect in defects_of(error))


def defects_of(error: ValidationError) -> list[tuple[list[str], str]]:
    """Return the first DEFECTS_MAX wrong values: the keys to each, and the same in words.

    What is wrong with several tables together has no keys, and its words name the place.
    """
    found = error.errors(include_input=False, include_url=False)[:DEFECTS_MAX]
    places = [[_key(part) for part in each["loc"]] for each in found]
    return [
        (keys, f"{'.'.join(keys)}: {_words(each)}" if keys else _words(each))
        for keys, each in zip(places, found, strict=True)
    ]


def _key(part: int | str) -> str:
    """Return one key of a place as printable text: keys are the operator's own, and may be anything."""
    text = str(part)[:KEY_CHARACTERS_MAX]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _words(defect: Any) -> str:
    if defect["type"] == "extra_forbidden":
        return "there is no such setting"
    return " ".join(str(defect["msg"]).removeprefix("Value error, ").split())
