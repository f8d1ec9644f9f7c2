"""What may be named to the books beside ids: each rule returns what is wrong with a name, or None."""

from shared.errors import MoneyError
from shared.money import Currencies
from shared.settings import Settings


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
