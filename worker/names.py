"""What may be named to the books: ids, currencies, integrations. Each rule returns what is wrong, or None."""

from typing import Final

from shared.errors import MoneyError
from shared.money import Currencies
from shared.settings import Settings

ID_CHARACTERS_MAX: Final = 128
"""As long as the providers' ids of players, sessions and transfers may be."""


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
        return f"{error} {currency!r}"
    return None


def refuse_integration(settings: Settings, integration: str) -> str | None:
    """Tell what is wrong with an integration's name. Where none is configured, any will do."""
    if not settings.integrations or integration in settings.integrations:
        return None
    return f"{integration!r} is not configured; configured: {', '.join(sorted(settings.integrations))}"
