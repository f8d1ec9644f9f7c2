"""What may be named to the books: ids, currencies, integrations. Each rule returns what is wrong, or None."""

from typing import Final

from shared.errors import MoneyError
from shared.money import Currencies
from shared.settings import Settings

ID_CHARACTERS_MAX: Final = 128
"""As long as the providers' ids of players, sessions and transfers may be."""

ID_PATTERN: Final = r"^[^\x00-\x1F\x7F-\xA0\xAD\u2028\u2029\uFEFF]+$"
"""An id as documents tell it: the unprintable characters that people meet. `refuse_id` knows all of them."""

CURRENCY_PATTERN: Final = r"^[A-Z0-9]{3,10}$"


def refuse_id(value: str) -> str | None:
    """Tell what is wrong with an id.

    >>> refuse_id("anna/50%"), refuse_id("")
    (None, 'an id has 1 to 128 printable characters')
    """
    if 1 <= len(value) <= ID_CHARACTERS_MAX and value.isprintable():
        return None
    return f"an id has 1 to {ID_CHARACTERS_MAX} printable characters"


def refuse_currency(currencies: Currencies, currency: str) -> str | None:
    """Tell what is wrong with a currency for new wallets or sessions."""
    try:
        currencies.exponent(currency)
    except MoneyError as error:
        return str(error)
    return None


def refuse_integration(settings: Settings, integration: str) -> str | None:
    """Tell what is wrong with an integration's name. Where none is configured, any will do."""
    if not settings.integrations or integration in settings.integrations:
        return None
    return f"{integration!r} is not configured; configured: {', '.join(sorted(settings.integrations))}"
