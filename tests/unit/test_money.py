"""Amounts: no cent is made or lost between a provider's text and the ledger's integer."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from shared.errors import MoneyError
from shared.money import MINOR_MAX, Currencies

CURRENCIES = Currencies({"BTC": 8, "USDT": 6})
EVERY = (*sorted(c.code for c in Currency if c.exponent is not None), "USDT", "BTC")


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("10.50", "EUR", 1050),
        ("10.5", "EUR", 1050),
        ("5.000", "EUR", 500),
        ("5", "EUR", 500),
        ("0", "EUR", 0),
        ("0.00", "EUR", 0),
        ("007.10", "EUR", 710),
        ("0.01", "EUR", 1),
        ("7", "JPY", 7),
        ("7.0", "JPY", 7),
        ("0.005", "KWD", 5),
        ("0.00000001", "BTC", 1),
        ("1.000001", "USDT", 1_000_001),
        ("9999999999999999.99", "EUR", MINOR_MAX),
        ("999999999999999999", "JPY", MINOR_MAX),
        ("1.0E7", "EUR", 10**9),
        ("1E-2", "EUR", 1),
        ("1e+2", "JPY", 100),
        ("12.345e1", "EUR", 12_345),
        ("1050E-2", "EUR", 1_050),
        ("0.0010e007", "EUR", 10**6),
        ("0E99", "EUR", 0),
        ("0e-99", "JPY", 0),
        ("1.2300E-1", "KWD", 123),
        ("1E15", "EUR", 10**17),
    ],
)
def test_amount_is_taken_to_the_minor_unit(text: str, currency: str, minor: int) -> None:
    assert CURRENCIES.to_minor(text, currency) == minor


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "+1",
        "-0",
        "1.5E-3",
        "1E16",
        "1e",
        "e5",
        "1e5.0",
        "1e 5",
        "1e++5",
        "-1e5",
        "+1e5",
        "1e999999999",
        "1e-999999999",
        "0e1000",
        "1e\uff15",
        "NaN",
        "Infinity",
        "1_000",
        "1,000",
        "1 ",
        " 1",
        "1\n",
        ".5",
        "5.",
        "1.2.3",
        "0x10",
        "١٢",
        "\uff11",
        "²",
        "1" * 41,
        "0." + "0" * 41,
        "10000000000000000.00",
    ],
)
def test_text_that_is_no_plain_amount_pays_nothing(text: str) -> None:
    with pytest.raises(MoneyError):
        CURRENCIES.to_minor(text, "EUR")


@pytest.mark.parametrize(
    ("text", "currency"), [("0.001", "EUR"), ("0.5", "JPY"), ("0.0001", "KWD"), ("0.000000001", "BTC")]
)
def test_fraction_of_a_minor_unit_is_refused_and_never_rounded(text: str, currency: str) -> None:
    with pytest.raises(MoneyError, match="more decimals than the currency has"):
        CURRENCIES.to_minor(text, currency)


@pytest.mark.parametrize("currency", ["", "eur", "XXQ", "EURO"])
def test_unknown_currency_is_told_and_not_quoted(currency: str) -> None:
    with pytest.raises(MoneyError) as refused:
        CURRENCIES.to_minor("1", currency)
    assert str(refused.value) == "unknown currency"


@given(minor=st.integers(-MINOR_MAX, MINOR_MAX), currency=st.sampled_from(EVERY))
def test_shown_amount_has_no_exponent_and_no_trailing_zero(minor: int, currency: str) -> None:
    text = CURRENCIES.to_text(minor, currency)
    assert set(text) <= set("-.0123456789")
    assert "." not in text or text[-1] not in "0."


@given(minor=st.integers(0, MINOR_MAX), currency=st.sampled_from(EVERY))
def test_amount_that_is_shown_is_read_back_the_same(minor: int, currency: str) -> None:
    assert CURRENCIES.to_minor(CURRENCIES.to_text(minor, currency), currency) == minor


@given(
    digits=st.integers(0, 10**20),
    places=st.integers(0, 20),
    power=st.integers(-99, 99),
    currency=st.sampled_from(EVERY),
)
def test_exponent_is_worth_what_it_says_or_refused(digits: int, places: int, power: int, currency: str) -> None:
    text = f"{Decimal(digits).scaleb(-places):f}e{power}"
    exact = Decimal(digits).scaleb(power - places + CURRENCIES.exponent(currency))
    try:
        minor = CURRENCIES.to_minor(text, currency)
    except MoneyError:
        assert exact > MINOR_MAX or exact != exact.to_integral_value()
    else:
        assert minor == exact


@given(text=st.text(max_size=30), currency=st.sampled_from(EVERY))
def test_any_text_is_an_amount_or_refused(text: str, currency: str) -> None:
    try:
        minor = CURRENCIES.to_minor(text, currency)
    except MoneyError:
        return
    assert 0 <= minor <= MINOR_MAX


@pytest.mark.parametrize("currency", EVERY)
def test_every_currency_tells_its_largest_amount_and_its_smallest_to_the_digit(currency: str) -> None:
    decimals = CURRENCIES.exponent(currency)
    for minor in (0, 1, 10**decimals, MINOR_MAX):
        text = CURRENCIES.to_text(minor, currency)
        assert CURRENCIES.to_minor(text, currency) == minor
        assert Decimal(text).scaleb(decimals) == minor
    with pytest.raises(MoneyError, match="more than 18 digits"):
        CURRENCIES.to_minor(str(Decimal(MINOR_MAX + 1).scaleb(-decimals)), currency)
