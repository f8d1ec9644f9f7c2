"""Who a client is, by address, where proxies may stand in front.

The client is who holds the TCP connection. Only where that is a trusted proxy, `X-Forwarded-For` says who it
is: each proxy appends the address that it heard from, so the right-most that is not a trusted proxy is the
last one that nobody but a trusted proxy has written. What stands to its left anybody may have written.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from starlette.types import Scope

from shared.networks import Address, Network, read_address

FORWARDED_CHARACTERS_MAX: Final = 1_024
"""A longer X-Forwarded-For is as good as none; each proxy on the way adds at most 47."""


def client_of(peer: str, forwarded_for: str, trusted_proxies: Sequence[Network]) -> Address | None:
    """Return who asks; None where a proxy is trusted to tell and doesn't, or the peer is no address.

    >>> from shared.networks import read_networks
    >>> proxies = read_networks("10.0.0.0/8")
    >>> client_of("10.0.0.1", "203.0.113.9, 192.0.2.7, 10.0.0.2", proxies), client_of("10.0.0.1", "", proxies)
    (IPv4Address('192.0.2.7'), None)
    """
    address = read_address(peer)
    if address is None or not is_in(address, trusted_proxies):
        return address
    told = forwarded_for if len(forwarded_for) <= FORWARDED_CHARACTERS_MAX else ""
    for entry in reversed(told.split(",")):
        address = read_address(entry.strip(" \t"))
        if address is None or not is_in(address, trusted_proxies):
            return address
    return None


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Tell whether an address is in one of the networks."""
    return any(address in network for network in networks)


def peer_of(scope: Scope) -> str:
    """Return the address of who holds a request's connection; "" where there is none."""
    client = scope.get("client")
    return client[0] if client else ""


def forwarded_for_of(scope: Scope) -> str:
    """Return a request's X-Forwarded-For, joined by commas where it comes several times."""
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1")
