"""The providers, each from its own side: `simulator.dialects.NAME` has the DIALECT of each provider NAME."""

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final
from uuid import UUID

from gateway.providers.base import Provider
from gateway.providers.registry import PROVIDERS
from shared.errors import MoneyError
from simulator.dialects.base import Dialect
from simulator.dialects.values import HttpResponse, ReplyMismatchError
from simulator.history import Receipt, ReplyMeaning


def _dialect(name: str) -> Dialect:
    dialect = import_module(f"simulator.dialects.{name}").DIALECT
    if not isinstance(dialect, Dialect) or dialect.name != name:
        raise TypeError(f"DIALECT of simulator.dialects.{name} is no dialect of {name}")
    return dialect


DIALECTS: Final[Mapping[str, Dialect]] = {name: _dialect(name) for name in PROVIDERS}
"""One for each provider of the registry, by its name there."""


@lru_cache(maxsize=64)
def dialect_of(provider: Provider[Any, Any]) -> Dialect:
    """Return how the provider speaks to this integration of the gateway's."""
    return DIALECTS[provider.settings.provider].speaking_to(provider)


def read_reply(
    provider: Provider[Any, Any], currency: str, response: HttpResponse
) -> tuple[ReplyMeaning, Receipt | None]:
    """Return what a reply to a win in `currency` means to its provider, with the receipt of a paid one."""
    try:
        meaning, transfer_id, balance = dialect_of(provider).read(response)
        if meaning is not ReplyMeaning.PAID:
            return meaning, None
        return meaning, Receipt(str(UUID(transfer_id)), provider.currencies.to_minor(balance, currency))
    except (ReplyMismatchError, MoneyError, ValueError, TypeError, AttributeError):
        return ReplyMeaning.GARBLED, None
