"""Which addresses an integration hears, where its settings name some.

The client is who holds the TCP connection. Only where that is a trusted proxy, `X-Forwarded-For` says who it
is: each proxy appends the address that it heard from, so the right-most that is not a trusted proxy is the
last one that nobody but a trusted proxy has written. What stands to its left anybody may have written.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from shared.networks import Address, Network, read_address

FORWARDED_CHARACTERS_MAX: Final = 1_024
"""A longer X-Forwarded-For is as good as none; each proxy on the way adds at most 47."""

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
        client = self._client(read_address(peer), forwarded_for)
        return client is not None and _is_in(client, self._allowed)

    def _client(self, peer: Address | None, forwarded_for: str) -> Address | None:
        """Return who asks, or None where a proxy is trusted to tell and doesn't."""
        if peer is None or not _is_in(peer, self._trusted_proxies):
            return peer
        for entry in reversed(forwarded_for.split(",")):
            address = read_address(entry.strip(" \t"))
            if address is None or not _is_in(address, self._trusted_proxies):
                return address
        return None


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
