"""Which client an address rule hears, and whom it believes about it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import CACHED_CLIENTS_MAX, AddressRule
from shared.http.clients import FORWARDED_CHARACTERS_MAX
from shared.networks import Network, read_address, read_networks

ALLOWED = read_networks(["192.0.2.0/24", "2001:db8::/32"])
PROXIES = read_networks(["10.0.0.0/8", "fd00::/8"])
DIRECT, BEHIND = AddressRule(ALLOWED, ()), AddressRule(ALLOWED, PROXIES)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "direct", "behind"),
    [
        ("192.0.2.7", "", True, True),
        ("2001:db8::1", "", True, True),
        ("::ffff:192.0.2.7", "", True, True),
        ("::ffff:c000:207", "", True, True),
        ("203.0.113.9", "", False, False),
        ("203.0.113.9", "192.0.2.7", False, False),  # nobody believes a stranger
        ("10.0.0.1", "192.0.2.7", False, True),
        ("::ffff:10.0.0.1", "192.0.2.7", False, True),
        ("fd00::1", "2001:db8::1", False, True),
        ("10.0.0.1", "::ffff:192.0.2.7", False, True),
        ("10.0.0.1", " 192.0.2.7 ,\t10.0.0.2", False, True),
        ("10.0.0.1", "203.0.113.9, 192.0.2.7", False, True),
        ("10.0.0.1", "192.0.2.7, 203.0.113.9", False, False),  # the right-most is who spoke to a proxy
        ("10.0.0.1", "garbage, 192.0.2.7", False, True),  # what a stranger wrote does not matter
        ("10.0.0.1", "192.0.2.7, garbage", False, False),
        ("10.0.0.1", "192.0.2.7,", False, False),
        ("10.0.0.1", "192.0.2.7, , 10.0.0.2", False, False),
        ("10.0.0.1", "192.0.2.7:443", False, False),
        ("10.0.0.1", "[2001:db8::1]", False, False),
        ("10.0.0.1", "192.0.2.07", False, False),
        ("10.0.0.1", "2001:db8::1%eth0", False, False),
        ("10.0.0.1", "", False, False),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", False, False),
        ("10.0.0.1", "192.0.2.7, " + "10.0.0.1, " * FORWARDED_CHARACTERS_MAX + "10.0.0.1", False, False),
        ("192.0.2.7", "x" * 5_000, True, True),  # nobody is asked about a client that is here
        ("", "192.0.2.7", False, False),
        ("unix:", "192.0.2.7", False, False),
    ],
)
def test_client_is_the_peer_unless_a_trusted_proxy_names_it(
    peer: str, forwarded_for: str, *, direct: bool, behind: bool
) -> None:
    for _ in range(2):  # found out, then remembered
        assert DIRECT.allows(peer, forwarded_for) is direct
        assert BEHIND.allows(peer, forwarded_for) is behind


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_makes_a_stranger_a_client(peer: str, forwarded_for: str) -> None:
    address = read_address(peer)
    is_client = address is not None and any(address in network for network in ALLOWED)
    assert DIRECT.allows(peer, forwarded_for) is is_client
    assert BEHIND.allows("203.0.113.9", forwarded_for) is False


@given(st.ip_addresses(), st.lists(st.ip_addresses() | st.text(max_size=20), max_size=5))
def test_last_proxy_alone_is_believed(client: ipaddress.IPv4Address, forged: list[object]) -> None:
    """Whatever a client writes into the header, the proxy appends where it came from."""
    header = ",".join([*map(str, forged), str(client)])
    own = read_address(str(client))
    if own is not None and not any(own in network for network in PROXIES):
        assert BEHIND.allows("10.0.0.1", header) is any(own in network for network in ALLOWED)


def test_what_is_remembered_is_bounded() -> None:
    rule = AddressRule(ALLOWED, PROXIES)
    for number in range(CACHED_CLIENTS_MAX + 10):
        rule.allows(str(ipaddress.IPv4Address(number)), "")
    assert rule.cached == CACHED_CLIENTS_MAX


def test_header_that_is_ignored_takes_no_memory() -> None:
    rule = AddressRule(ALLOWED, ())
    for number in range(10):
        assert rule.allows("192.0.2.7", str(number))
    assert rule.cached == 1


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("192.0.2.0/24", ["192.0.2.0/24"]),
        ('["192.0.2.0/24", "2001:db8::/32"]', ["192.0.2.0/24", "2001:db8::/32"]),
        (["192.0.2.7"], ["192.0.2.7/32"]),
        (["::ffff:10.0.0.0/104"], ["10.0.0.0/8"]),
        ([], []),
    ],
)
def test_networks_are_read_as_a_list_or_as_one(written: object, read: list[str]) -> None:
    assert [str(network) for network in read_networks(written)] == read


@pytest.mark.parametrize(
    "written",
    [
        5,
        None,
        True,
        {"hunter2": 1},
        "hunter2",
        '["hunter2"',
        "",
        [""],
        [None],
        [7],
        ["192.0.2.1/24"],
        ["192.0.2.0/33"],
    ],
)
def test_what_is_no_network_is_refused_and_not_repeated(written: object) -> None:
    with pytest.raises(ValueError, match="network") as refused:
        read_networks(written)
    assert "hunter2" not in str(refused.value)


def test_networks_that_were_read_stay_as_they_are() -> None:
    read: tuple[Network, ...] = ALLOWED
    assert read_networks(read) == read
