"""The providers that a gateway knows, and the integrations made of them. See docs/providers/adding.md to add one."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from pydantic import ValidationError

from gateway.providers.base import Provider
from gateway.providers.gpas import Gpas
from gateway.providers.hpgames import HpGames
from gateway.providers.igamingace import IGamingAce
from gateway.providers.klas import Klas
from gateway.providers.signing import SigningKeys
from shared.errors import SettingsError
from shared.money import Currencies
from shared.settings_defects import describe

PROVIDERS: Final[Mapping[str, type[Provider[Any, Any]]]] = {
    "klas": Klas,
    "gpas": Gpas,
    "hpgames": HpGames,
    "igamingace": IGamingAce,
}


def build(name: str, table: Mapping[str, Any], currencies: Currencies) -> Provider[Any, Any]:
    """Create the integration `name` from its settings table. Raises SettingsError with one line."""
    where = f"integrations.{name}"
    protocol = PROVIDERS.get(str(table.get("provider")))
    if protocol is None:
        raise SettingsError(f"[{where}] provider: must be one of {', '.join(PROVIDERS)}")
    try:
        settings = protocol.settings_type.model_validate(table)
    except ValidationError as error:
        raise SettingsError(describe(error, where)) from None
    return protocol(name, settings, SigningKeys.load(settings.secrets, f"[{where}] secrets"), currencies)


def build_all(integrations: Mapping[str, Mapping[str, Any]], currencies: Currencies) -> list[Provider[Any, Any]]:
    """Create every integration from its settings table. Raises SettingsError with one line."""
    providers = [build(name, table, currencies) for name, table in integrations.items()]
    refuse_common_secrets(providers)
    return providers


def refuse_common_secrets(providers: Sequence[Provider[Any, Any]]) -> None:
    """Raise SettingsError if two integrations would both pay the same signed request."""
    for one, other in combinations(providers, 2):
        alike = type(one) is type(other) and one.secrets.overlap(other.secrets)
        if alike and not one.is_readable_from(other):
            raise SettingsError(
                f"[integrations.{one.name}] and [integrations.{other.name}] have a secret in common: "
                "a win signed for one would be paid at the other, too"
            )
