"""The check of a client's address, for integrations whose settings name allowed networks."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from shared.http.clients import FORWARDED_CHARACTERS_MAX, client_of, is_in
from shared.networks import Network

CACHED_CLIENTS_MAX: Final = 4_096
"""Decisions that are cached, by address and header: to parse an address takes longer than the rest of the check."""


class AddressRule:
    """Decides by the allowed networks, and by the proxies that are trusted to name their clients.

    >>> from shared.networks import read_networks
    >>> rule = AddressRule(read_networks("192.0.2.0/24"), read_networks("10.0.0.0/8"))
    >>> rule.allows("192.0.2.7", ""), rule.allows("10.0.0.1", "192.0.2.7"), rule.allows("10.0.0.1", "")
    (True, True, False)
    """

    def __init__(self, allowed: Sequence[Network], trusted_proxies: Sequence[Network]) -> None:
        """Take the networks of the clients, and of the proxies."""
        self._allowed: Final = tuple(allowed)
        self._trusted_proxies: Final = tuple(trusted_proxies)
        self._decide: Final = lru_cache(CACHED_CLIENTS_MAX)(self._evaluate)

    def allows(self, peer: str, forwarded_for: str) -> bool:
        """Tell whether a client is allowed, by its peer address and its X-Forwarded-For, joined by commas."""
        is_used = self._trusted_proxies and len(forwarded_for) <= FORWARDED_CHARACTERS_MAX
        return self._decide(peer, forwarded_for if is_used else "")

    @property
    def cached(self) -> int:
        """How many decisions are cached."""
        return self._decide.cache_info().currsize

    def _evaluate(self, peer: str, forwarded_for: str) -> bool:
        client = client_of(peer, forwarded_for, self._trusted_proxies)
        return client is not None and is_in(client, self._allowed)
