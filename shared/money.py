"""Amounts of money: text outside, integer minor units inside, never a binary fraction.

>>> euro = Currencies()
>>> euro.to_minor("10.50", "EUR"), euro.to_minor("5.000", "EUR"), euro.to_minor("7", "JPY")
(1050, 500, 7)
>>> euro.to_minor("1.0E7", "EUR"), euro.to_minor("1E-2", "EUR")
(1000000000, 1)
>>> euro.to_text(1050, "EUR"), euro.to_text(1000, "EUR"), euro.to_text(5, "KWD")
('10.5', '10', '0.005')
>>> euro.to_minor("0.001", "EUR")
Traceback (most recent call last):
shared.errors.MoneyError: more decimals than the currency has

A currency's decimals are ISO 4217's, from the `iso4217` package; the setting `[currencies]` adds others.
A MoneyError never quotes the amount or the currency: they may be fields of a stranger's request.
"""

import re
from collections.abc import Mapping
from typing import Final

from iso4217 import Currency

from shared.errors import MoneyError

MINOR_DIGITS_MAX: Final = 18
MINOR_MAX: Final = 10**MINOR_DIGITS_MAX - 1
"""The largest amount and the largest balance in minor units: 18 digits, which fit a signed 64-bit integer."""

# Longer texts can't be amounts; the bounds keep thousands of digits, also from exponents, away from `int`.
_AMOUNT = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,40}))?(?:[eE]([+-]?0?[0-9]{1,2}))?")


def decimal_digits(text: str) -> tuple[str, str]:
    """Return the digits of an amount before and after its decimal point, the latter without trailing zeros.

    An exponent is applied: a Java double writes ten million as 1.0E7. Raises MoneyError for a sign, a separator,
    a non-ASCII digit, and for more than 40 digits or an exponent beyond 99.

    >>> decimal_digits("10.50"), decimal_digits("1.0E7"), decimal_digits("25e-1")
    (('10', '5'), ('10000000', ''), ('2', '5'))
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise MoneyError("not a decimal amount")
    whole, fraction, power = match.groups()
    if fraction is None:
        fraction = ""
    if power is not None:
        whole, fraction = _shifted(whole, fraction, int(power))
    return whole, fraction.rstrip("0")


def _shifted(whole: str, fraction: str, power: int) -> tuple[str, str]:
    """Move the decimal point `power` places to the right, or to the left where it is negative."""
    digits, point = whole + fraction, len(whole) + power
    if point < 1:
        digits, point = "0" * (1 - point) + digits, 1
    digits = digits.ljust(point, "0")
    return digits[:point], digits[point:]


class Currencies:
    """The currencies that this installation pays in, with their number of decimals."""

    def __init__(self, extra: Mapping[str, int] | None = None) -> None:
        """Take ISO 4217's currencies and `extra`: code -> decimals."""
        iso = {c.code: c.exponent for c in Currency if c.exponent is not None}
        self._exponents: Final = {**iso, **(extra or {})}

    def exponent(self, currency: str) -> int:
        """Return the number of decimals of `currency`. Raises MoneyError for an unknown code."""
        try:
            return self._exponents[currency]
        except KeyError:
            raise MoneyError("unknown currency") from None

    def to_minor(self, text: str, currency: str) -> int:
        """Return the minor units of a decimal text such as "10.50" or "1.05E1".

        Raises MoneyError for what `decimal_digits` refuses, for more decimals than the currency has (trailing
        zeros beyond are fine), or for more than 18 digits of minor units.
        """
        exponent = self.exponent(currency)
        whole, fraction = decimal_digits(text)
        if len(fraction) > exponent:
            raise MoneyError("more decimals than the currency has")
        minor = int(whole + fraction.ljust(exponent, "0"))
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
