"""Amounts: text outside, integer minor units inside, never a binary fraction.

>>> euro = Currencies()
>>> euro.to_minor("10.50", "EUR"), euro.to_minor("5.000", "EUR"), euro.to_minor("7", "JPY")
(1050, 500, 7)
>>> euro.to_text(1050, "EUR"), euro.to_text(1000, "EUR"), euro.to_text(5, "KWD")
('10.5', '10', '0.005')
>>> euro.to_minor("0.001", "EUR")
Traceback (most recent call last):
shared.errors.MoneyError: 0.001 has more decimals than EUR

Exponents are ISO 4217's, from the `iso4217` package; the setting `[currencies]` adds others.
"""

import re
from collections.abc import Mapping
from typing import Final

from iso4217 import Currency

from shared.errors import MoneyError

MINOR_DIGITS_MAX: Final = 18
MINOR_MAX: Final = 10**MINOR_DIGITS_MAX - 1
"""The largest amount and the largest balance, in minor units: 18 digits, inside a signed 64-bit integer."""

# Longer texts can't be amounts; the bound keeps `int` away from digits by the thousand.
_AMOUNT = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,40}))?")


class Currencies:
    """The currencies this installation pays in, with their number of decimals."""

    def __init__(self, extra: Mapping[str, int] | None = None) -> None:
        """Take ISO 4217's currencies and `extra`: code -> decimals."""
        iso = {c.code: c.exponent for c in Currency if c.exponent is not None}
        self._exponents: Final = {**iso, **(extra or {})}

    def exponent(self, currency: str) -> int:
        """Return the number of decimals of `currency`. Raises MoneyError for an unknown code."""
        try:
            return self._exponents[currency]
        except KeyError:
            raise MoneyError(f"unknown currency {currency!r}") from None

    def to_minor(self, text: str, currency: str) -> int:
        """Return the minor units of a plain decimal text such as "10.50".

        Raises MoneyError for a sign, an exponent, a separator, a non-ASCII digit, more decimals than the
        currency has (trailing zeros beyond are fine), or more than 18 digits of minor units.
        """
        exponent = self.exponent(currency)
        match = _AMOUNT.fullmatch(text)
        if match is None:
            raise MoneyError("not a plain decimal amount")
        fraction = (match[2] or "").rstrip("0")
        if len(fraction) > exponent:
            raise MoneyError(f"{text} has more decimals than {currency}")
        minor = int(match[1] + fraction.ljust(exponent, "0"))
        if minor > MINOR_MAX:
            raise MoneyError(f"the amount has more than {MINOR_DIGITS_MAX} digits in minor units")
        return minor

    def to_text(self, minor: int, currency: str) -> str:
        """Return `minor` units as a plain decimal text, trailing zeros trimmed."""
        exponent = self.exponent(currency)
        if exponent == 0:
            return str(minor)
        sign, digits = ("-" if minor < 0 else ""), str(abs(minor)).rjust(exponent + 1, "0")
        return sign + f"{digits[:-exponent]}.{digits[-exponent:]}".rstrip("0").rstrip(".")
