"""Finds the address of a request's client, also behind proxies.

The client is the TCP peer. Only if that is a trusted proxy does `X-Forwarded-For` count: each proxy appends
the address of its own peer, so the right-most entry that is not a trusted proxy is the last one that a trusted
proxy wrote. Entries to its left may be forged.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from starlette.types import Scope

from shared.networks import Address, Network, read_address

FORWARDED_CHARACTERS_MAX: Final = 1_024
"""A longer X-Forwarded-For is ignored; each proxy on the way adds at most 47 characters."""


def client_of(peer: str, forwarded_for: str, trusted_proxies: Sequence[Network]) -> Address | None:
    """Return the client's address, or None if the peer is no address or a trusted proxy does not name the client.

    >>> from shared.networks import read_networks
    >>> proxies = read_networks("10.0.0.0/8")
    >>> client_of("10.0.0.1", "203.0.113.9, 192.0.2.7, 10.0.0.2", proxies), client_of("10.0.0.1", "", proxies)
    (IPv4Address('192.0.2.7'), None)
    """
    address = read_address(peer)
    if address is None or not is_in(address, trusted_proxies):
        return address
    entries = forwarded_for.split(",") if len(forwarded_for) <= FORWARDED_CHARACTERS_MAX else []
    for entry in reversed(entries):
        address = read_address(entry.strip(" \t"))
        if address is None or not is_in(address, trusted_proxies):
            return address
    return None


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of the networks."""
    return any(address in network for network in networks)


def peer_of(scope: Scope) -> str:
    """Return the address of a request's TCP peer; "" where there is none."""
    client = scope.get("client")
    return client[0] if client else ""


def forwarded_for_of(scope: Scope) -> str:
    """Return a request's X-Forwarded-For; several headers are joined by commas."""
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1")
