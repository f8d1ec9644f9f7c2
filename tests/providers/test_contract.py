"""What the providers share, where a provider's own tests can't see its bounds."""

from collections.abc import Callable

import msgspec
import pytest

from gateway.providers.base import CallbackRejected, explain
from gateway.providers.fields import bounded_details, lexeme, number_lexeme, raw_text
from shared.ids import is_id
from shared.outcome import Outcome, OutcomeCode


def test_what_a_provider_said_is_kept_but_not_without_end() -> None:
    assert bounded_details(a="x" * 2_000, b="", c=None, d="y") == {"a": "x" * 1_000, "d": "y"}


@pytest.mark.parametrize(
    ("written", "kept"),
    [("null", ""), ('"caf\\u00e9"', "café"), ("5.00", "5.00"), ("[1, 2.50]", "[1, 2.50]"), ("true", "true")],
)
def test_any_value_is_kept_as_it_was_said(written: str, kept: str) -> None:
    assert raw_text(msgspec.Raw(written.encode())) == kept


def test_value_of_a_thousand_lists_is_cut() -> None:
    assert len(raw_text(msgspec.Raw(b"[" + b"1," * 1_000 + b"1]"))) == 1_000


@pytest.mark.parametrize("read", [lexeme, number_lexeme])
def test_number_of_a_million_digits_is_refused_before_anyone_counts_with_it(
    read: Callable[[msgspec.Raw, str], str],
) -> None:
    with pytest.raises(CallbackRejected):
        read(msgspec.Raw(b"9" * 1_000_000), "amount")


@pytest.mark.parametrize("written", ["true", "null", "[]", "{}", '"5"'])
def test_only_a_number_is_a_number(written: str) -> None:
    with pytest.raises(CallbackRejected, match="amount: not a number"):
        number_lexeme(msgspec.Raw(written.encode()), "amount")


def test_conflict_tells_support_what_differs() -> None:
    outcome = Outcome(OutcomeCode.CONFLICT, mismatched_fields=("amount_minor", "round_id"))
    assert explain(outcome) == "this id was processed with other content: amount_minor, round_id"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a", True), ("Zoë 玩家", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a\n", False)],
)
def test_id_is_short_and_printable(text: str, is_one: bool) -> None:  # noqa: FBT001  (a table's column)
    assert is_id(text) is is_one
