"""Which addresses an integration hears, where its settings name some."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from shared.http.clients import FORWARDED_CHARACTERS_MAX, client_of, is_in
from shared.networks import Network

REMEMBERED_CLIENTS_MAX: Final = 4_096
"""Decisions that are kept, by address and header: to read an address takes longer than all the rest."""


class AddressRule:
    """The networks that an integration hears, and the proxies that are believed about their clients.

    >>> from shared.networks import read_networks
    >>> rule = AddressRule(read_networks("192.0.2.0/24"), read_networks("10.0.0.0/8"))
    >>> rule.allows("192.0.2.7", ""), rule.allows("10.0.0.1", "192.0.2.7"), rule.allows("10.0.0.1", "")
    (True, True, False)
    """

    def __init__(self, allowed: Sequence[Network], trusted_proxies: Sequence[Network]) -> None:
        """Take the networks of the clients, and of the proxies."""
        self._allowed: Final = tuple(allowed)
        self._trusted_proxies: Final = tuple(trusted_proxies)
        self._decide: Final = lru_cache(REMEMBERED_CLIENTS_MAX)(self._find_out)

    def allows(self, peer: str, forwarded_for: str) -> bool:
        """Tell whether a client is heard, by its peer address and its X-Forwarded-For, joined by commas."""
        is_of_use = self._trusted_proxies and len(forwarded_for) <= FORWARDED_CHARACTERS_MAX
        return self._decide(peer, forwarded_for if is_of_use else "")

    @property
    def remembered(self) -> int:
        """How many decisions are kept."""
        return self._decide.cache_info().currsize

    def _find_out(self, peer: str, forwarded_for: str) -> bool:
        client = client_of(peer, forwarded_for, self._trusted_proxies)
        return client is not None and is_in(client, self._allowed)
