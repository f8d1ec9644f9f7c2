"""Types of settings: names, codes, and lists that may be written as one text."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field

from shared.cell_places import CELL_NAME
from shared.currency_code import CURRENCY_CHARACTERS_MAX, CURRENCY_CHARACTERS_MIN, is_currency_code

INTEGRATION_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
IntegrationName = Annotated[str, Field(pattern=INTEGRATION_NAME)]

USER_NAME: Final = r"^[a-z][a-z0-9_-]{0,62}$"
UserName = Annotated[str, Field(pattern=USER_NAME)]

CellName = Annotated[str, Field(pattern=CELL_NAME)]


def _currency_code(code: str) -> str:
    """Refuse a code that the tables can't hold, rather than convert it into another currency's."""
    if not is_currency_code(code):
        bounds = f"{CURRENCY_CHARACTERS_MIN} to {CURRENCY_CHARACTERS_MAX}"
        raise ValueError(f"a currency's code has {bounds} digits and upper-case letters, as the provider sends it")
    return code


CurrencyCode = Annotated[str, AfterValidator(_currency_code)]


def string_list(value: object) -> object:
    """Return a text as a list of one; a text that begins with `[`, as in a variable, is a JSON list."""
    if not isinstance(value, str):
        return value
    if not value.startswith("["):
        return [value]
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("begins with [, and so must be a JSON list of texts") from None


StringList = Annotated[tuple[str, ...], BeforeValidator(string_list)]
"""One text or a list of texts; in an environment variable, a JSON list."""


def rename(given: Any, former: str, name: str, convert: Callable[[Any], Any] = lambda value: value) -> Any:
    """Return a table as it was given, with a setting's former name replaced. Raises ValueError if it has both."""
    if not isinstance(given, dict) or former not in given:
        return given
    if name in given:
        raise ValueError(f"{former} is the former name of {name}: give one of them")
    return {name: convert(given[former]), **{key: value for key, value in given.items() if key != former}}
