"""Rules for the names in a request other than ids: each returns the defect of a name, or None."""

from shared.errors import MoneyError
from shared.money import Currencies
from shared.settings import Settings


def refuse_currency(currencies: Currencies, currency: str) -> str | None:
    """Return why a currency can't be that of new wallets or sessions, or None if it can."""
    try:
        currencies.exponent(currency)
    except MoneyError as error:
        return f"{error} {currency!r}"
    return None


def refuse_integration(settings: Settings, integration: str) -> str | None:
    """Return why an integration can't be used, or None if it can. Any can if none is configured."""
    if not settings.integrations or integration in settings.integrations:
        return None
    return f"{integration!r} is not configured; configured: {', '.join(sorted(settings.integrations))}"
