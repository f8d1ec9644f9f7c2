"""Wins in other currencies than euro: yen without decimals, dinars with three, coins with eight."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from simulator.dialects import DIALECTS, igamingace
from simulator.dialects.base import Dialect
from simulator.dialects.values import Facts
from tests.support.servers import fresh_database
from tests.support.stack import Stack, embedded_stack

ANY_DECIMALS = [dialect for dialect in DIALECTS.values() if dialect.decimals_max is None]
OF_ANY_CURRENCY = [dialect for dialect in DIALECTS.values() if "currency" not in dialect.silent_about]
WITH_CURRENCY = [dialect for dialect in DIALECTS.values() if dialect.currency_field]

COINS = {"BTC": 8, "USDT": 6}
LARGEST = "9999999999999999.99"
LARGEST_MINOR = 10**18 - 1


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    if request.param == "sqlite":
        database_url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('ledger')}/credits.db"
    else:
        database_url = await fresh_database(request.getfixturevalue("servers"))
    integrations = {name: {**dialect.settings, "reply_within_seconds": 30} for name, dialect in DIALECTS.items()}
    async with embedded_stack(database_url, integrations, currencies=COINS) as running:
        yield running
        assert await running.broken_invariants() == []


async def new_player(stack: Stack, currency: str) -> Facts:
    facts = Facts(player_id=f"player{uuid4().hex[:12]}", session_id=f"session-{uuid4()}", currency=currency)
    await stack.add_player(facts.player_id, currency)
    await open_sessions(stack, facts)
    return facts


async def open_sessions(stack: Stack, facts: Facts) -> None:
    """Open the session where wins name sessions only, in the currency of the facts."""
    for name, dialect in DIALECTS.items():
        if dialect.names_sessions_only:
            await stack.open_session(name, facts.session_id, facts.player_id, facts.currency)


@pytest.mark.parametrize(
    ("currency", "amount", "minor", "told"),
    [
        ("JPY", "7", 7, "7"),
        ("JPY", "7.00", 7, "7"),
        ("KWD", "0.125", 125, "0.125"),
        ("KWD", "1.500", 1_500, "1.5"),
        ("BTC", "0.00000001", 1, "0.00000001"),
        ("BTC", "21000000", 2_100_000_000_000_000, "21000000"),
        ("USDT", "1.000001", 1_000_001, "1.000001"),
    ],
)
@pytest.mark.parametrize("dialect", ANY_DECIMALS, ids=repr)
async def test_win_is_exact_in_its_currency(
    stack: Stack, dialect: Dialect, currency: str, amount: str, minor: int, told: str
) -> None:
    facts = await new_player(stack, currency)
    response = await stack.send(dialect.name, dialect.with_amount(facts, amount))
    assert dialect.read_paid(response, facts, replay=False).balance == told
    assert await stack.balance(facts.player_id, currency) == minor


@pytest.mark.parametrize(
    ("currency", "amount", "minor", "told"),
    [("JPY", "7.00", 7, "7"), ("KWD", "0.12", 120, "0.12"), ("BTC", "0.01", 1_000_000, "0.01")],
)
async def test_igamingace_pays_in_the_players_own_currency(
    stack: Stack, currency: str, amount: str, minor: int, told: str
) -> None:
    facts, dialect = await new_player(stack, currency), igamingace.DIALECT
    response = await stack.send("igamingace", dialect.with_amount(facts, amount))
    assert dialect.read_paid(response, facts, replay=False).balance == told
    assert await stack.balance(facts.player_id, currency) == minor


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "7.50"), ("KWD", "0.1255"), ("BTC", "0.000000001")])
@pytest.mark.parametrize("dialect", ANY_DECIMALS, ids=repr)
async def test_finer_amount_than_the_currency_has_is_refused_and_not_rounded(
    stack: Stack, dialect: Dialect, currency: str, amount: str
) -> None:
    facts = await new_player(stack, currency)
    response = await stack.send(dialect.name, dialect.with_amount(facts, amount))
    dialect.assert_error(response, "malformed", tx=facts.provider_tx_id)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=repr)
async def test_eighteen_digits_are_paid_and_nothing_more_fits_beside_them(stack: Stack, dialect: Dialect) -> None:
    facts = await new_player(stack, "EUR")
    larger = facts.another()
    refused = await stack.send(dialect.name, dialect.with_amount(larger, "10000000000000000.00"))
    dialect.assert_error(refused, "malformed", tx=larger.provider_tx_id)
    paid = await stack.send(dialect.name, dialect.with_amount(facts, LARGEST))
    assert dialect.read_paid(paid, facts, replay=False).balance == LARGEST
    more = facts.another(amount="0.01")
    full = await stack.send(dialect.name, dialect.credit(more))
    dialect.assert_error(full, "balance_limit", tx=more.provider_tx_id)
    assert await stack.balance(facts.player_id) == LARGEST_MINOR
    repeated = await stack.send(dialect.name, dialect.with_amount(facts, LARGEST))
    assert dialect.read_paid(repeated, facts, replay=True).balance == LARGEST


@pytest.mark.parametrize("dialect", OF_ANY_CURRENCY, ids=repr)
async def test_player_is_paid_in_each_currency_they_hold(stack: Stack, dialect: Dialect) -> None:
    euros = await new_player(stack, "EUR")
    await stack.add_player(euros.player_id, "JPY")
    yen = euros.another(currency="JPY", amount="7", session_id=f"session-{uuid4()}")
    await open_sessions(stack, yen)
    for facts, told in ((euros, "10.5"), (yen, "7")):
        response = await stack.send(dialect.name, dialect.credit(facts))
        assert dialect.read_paid(response, facts, replay=False).balance == told
    assert await stack.balance(euros.player_id, "EUR") == 1_050
    assert await stack.balance(euros.player_id, "JPY") == 7


@pytest.mark.parametrize("dialect", WITH_CURRENCY, ids=repr)
async def test_win_in_a_currency_that_the_player_does_not_hold_is_refused(stack: Stack, dialect: Dialect) -> None:
    facts = await new_player(stack, "EUR")
    for currency in ("JPY", "XYZ"):
        other = facts.another(currency=currency, amount="7")
        response = await stack.send(dialect.name, dialect.credit(other))
        dialect.assert_error(response, "wrong_currency", tx=other.provider_tx_id)
    assert await stack.transfers(facts.player_id) == []
