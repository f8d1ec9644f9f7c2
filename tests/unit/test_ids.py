"""One rule for ids: what a provider's schema admits, and so may be paid, every lookup takes."""

import msgspec
import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.providers.base import TEXT_CHARACTERS_MAX, Id, Text
from gateway.providers.fields import reference
from shared.ids import (
    ID_CHARACTERS_MAX,
    ROUND_ID_CHARACTERS_MAX,
    is_id,
    refuse_id,
    refuse_round_id,
    storable_round_id,
)
from worker.cli.options import checked_id, checked_round_id

# Characters that some versions of Unicode print and others don't, that steer the direction, that join.
ODD = "\u00a0\u3000\u2028\u200f\u202e\u200d\ufeff\u0085\U0001f468\U000e0001\ufffe"


@given(st.text(max_size=2 * ID_CHARACTERS_MAX))
@example("x" * ID_CHARACTERS_MAX)
@example(ODD)
@example("a\n")
def test_what_a_providers_schema_admits_as_id_is_an_id_everywhere(text: str) -> None:
    try:
        msgspec.convert(text, Id)
    except msgspec.ValidationError:
        assert refuse_id(text) is not None
    else:
        assert is_id(text)
        assert checked_id(text) == text
        assert refuse_round_id(text) is None


@given(st.text(min_size=1, max_size=2 * TEXT_CHARACTERS_MAX))
@example("x" * ROUND_ID_CHARACTERS_MAX)
@example("two\nlines\x7f")
def test_what_a_providers_schema_admits_as_round_can_be_looked_up(text: str) -> None:
    try:
        msgspec.convert(text, Text)
    except msgspec.ValidationError:
        assert refuse_round_id(text) is not None
    else:
        assert checked_round_id(text) == text


@given(st.text(min_size=1))
@example("x" * ROUND_ID_CHARACTERS_MAX)
def test_round_that_is_stored_of_any_text_can_be_looked_up(text: str) -> None:
    kept = reference(msgspec.Raw(msgspec.json.encode(text)))
    assert kept in {None, text}
    assert kept is None or refuse_round_id(kept) is None


@pytest.mark.parametrize("text", ["", "\0", "\udcff", "x" * 1_001])
def test_what_no_table_can_hold_is_wrong_usage_and_no_defect(text: str) -> None:
    for check in (checked_id, checked_round_id):
        with pytest.raises(typer.BadParameter):
            check(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [(None, True), ("", True), ("x" * 1_000, True), ("é" * 1_000, True), ("玩" * 667, False)],
)
def test_round_that_no_index_can_hold_is_left_out_so_that_its_win_is_paid(
    text: str | None,
    kept: bool,  # noqa: FBT001  (a table's column)
) -> None:
    assert storable_round_id(text) == (text if kept else None)
