r"""A currency's code: one rule for settings, tables, schemas and requests.

ISO 4217's codes have three letters; those that [currencies] adds may be longer, and have digits.

>>> [is_currency_code(code) for code in ("EUR", "USDT", "eur", "EU", "E\u00dcR", "EUR\n")]
[True, True, False, False, False, False]
"""

import re
from typing import Final

CURRENCY_CHARACTERS_MIN: Final = 3
CURRENCY_CHARACTERS_MAX: Final = 10

CURRENCY_PATTERN: Final = f"^[A-Z0-9]{{{CURRENCY_CHARACTERS_MIN},{CURRENCY_CHARACTERS_MAX}}}$"
"""The rule as a JSON schema writes it."""

_CODE: Final = re.compile(CURRENCY_PATTERN.strip("^$"))


def is_currency_code(text: str) -> bool:
    """Tell whether a text can be a currency's code, whether or not there is such a currency."""
    return _CODE.fullmatch(text) is not None
