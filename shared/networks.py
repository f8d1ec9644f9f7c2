"""Reads networks from the settings, and addresses as clients and proxies write them."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Final

import msgspec
from pydantic import BeforeValidator
from pydantic_settings import NoDecode

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

ADDRESS_CHARACTERS_MAX: Final = 45
"""The length of the longest address as text: an IPv6 address that ends with an IPv4 one."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""IPv4-mapped IPv6 addresses, by which a dual-stack socket reports IPv4 clients."""


def read_address(text: str) -> Address | None:
    """Return the address in a text, an IPv4-mapped IPv6 address as IPv4; None for any other text.

    >>> read_address("::ffff:192.0.2.1"), read_address("192.0.2.1:80"), read_address("fe80::1%eth0")
    (IPv4Address('192.0.2.1'), None, None)
    """
    if len(text) > ADDRESS_CHARACTERS_MAX or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def read_networks(value: object) -> tuple[Network, ...]:
    """Return the networks in a list, or in a text that is one network or a JSON list.

    Raises ValueError, which gives the number of the wrong entry and never repeats it.

    >>> read_networks("192.0.2.0/24"), read_networks('["2001:db8::/32", "192.0.2.7"]')
    ((IPv4Network('192.0.2.0/24'),), (IPv6Network('2001:db8::/32'), IPv4Network('192.0.2.7/32')))
    """
    if isinstance(value, str):
        value = _read_text(value)
    if not isinstance(value, Sequence):
        raise ValueError("must be a list of networks, such as 192.0.2.0/24")  # noqa: TRY004  (pydantic's contract)
    return tuple(_read_network(entry, number) for number, entry in enumerate(value, 1))


Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(read_networks)]
"""A setting that holds networks."""


def _read_text(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [text]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError("must be one network, or a JSON list of networks") from None


def _read_network(entry: object, number: int) -> Network:
    if isinstance(entry, Network):
        return entry
    try:
        network = ip_network(entry.strip() if isinstance(entry, str) else "")
    except ValueError:
        raise ValueError(
            f"number {number} is not a network such as 192.0.2.0/24, with no bits set beyond its length"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network((str(mapped), network.prefixlen - _MAPPED.prefixlen))
    return network
