"""Wins that were lost with a primary: what was true when it was told is excused, and nothing else."""

from typing import Any

import msgspec
import pytest

from simulator.history import Attempt, Books, Content, Posted, Receipt, ReplyMeaning, Verdict, served
from tests.faults.experiment import Trial
from tests.faults.loss import NO_LOSS, lost_between

LOST, KEPT = (Content("klas", name, "anna", "EUR", 100) for name in ("lost", "kept"))
UNTIL = 20.0


def paid(asked: Content, ended_at: float, transfer_id: str, balance_minor: int) -> Attempt:
    return Attempt(asked, ended_at - 0.1, ended_at, ReplyMeaning.PAID, Receipt(transfer_id, balance_minor))


BEFORE = [paid(KEPT, 10.0, "t-1", 100), paid(LOST, 11.0, "t-2", 200)]
PROMOTED = Books([Posted(KEPT, Receipt("t-1", 100), 100)], {"anna": 100})
IN_THE_END = Books([*PROMOTED.posted, Posted(LOST, Receipt("t-3", 200), 100)], {"anna": 200})
LOSS = lost_between(BEFORE, PROMOTED, UNTIL)


def judged(attempts: list[Attempt], books: Books) -> Verdict:
    return LOSS.check_history(attempts, books, [LOST.identity])


def test_what_was_told_as_paid_and_is_not_in_the_new_books_is_lost() -> None:
    assert LOSS.identities == {LOST.identity}
    assert [attempt for attempt in BEFORE if LOSS.excuses(attempt)] == BEFORE[1:]
    assert not any(NO_LOSS.excuses(attempt) for attempt in BEFORE)


def test_lost_win_that_is_paid_when_it_comes_again_holds() -> None:
    again = paid(LOST, 21.0, "t-3", 200)
    assert judged([*BEFORE, again], IN_THE_END).holds


@pytest.mark.parametrize(
    ("again", "books"),
    [
        pytest.param([], PROMOTED, id="never paid again"),
        pytest.param([paid(LOST, 21.0, "t-2", 200)], PROMOTED, id="told from a cache, absent from the books"),
        pytest.param([paid(LOST, 21.0, "t-2", 200)], IN_THE_END, id="told of the transfer that was lost"),
    ],
)
def test_lost_win_that_is_told_as_paid_and_is_not_is_found_out(again: list[Attempt], books: Books) -> None:
    assert not judged([*BEFORE, *again], books).holds


def test_lost_win_that_came_again_before_the_books_were_read_is_lost_all_the_same() -> None:
    again = paid(LOST, 21.0, "t-3", 200)
    loss = lost_between([*BEFORE, again], IN_THE_END, UNTIL)
    assert loss == LOSS
    assert loss.check_history([*BEFORE, again], IN_THE_END, [LOST.identity]).holds


def test_two_replies_about_a_lost_win_that_can_not_both_be_true_are_found_out() -> None:
    attempts = [*BEFORE, paid(LOST, 12.0, "t-9", 200), paid(LOST, 21.0, "t-3", 200)]
    loss = lost_between(attempts, PROMOTED, UNTIL)
    assert len(loss.identities) == 1
    assert not loss.check_history(attempts, IN_THE_END, [LOST.identity]).holds


def test_win_that_was_kept_is_not_excused() -> None:
    other = msgspec.structs.replace(BEFORE[0], receipt=Receipt("t-9", 100))
    assert not judged([other, *BEFORE[1:], paid(LOST, 21.0, "t-3", 200)], IN_THE_END).holds


def trial(**fields: Any) -> Trial:
    return Trial("any", True, served([]), Verdict({}), 0, 1.0, 0.1, 0, "", **fields)  # noqa: FBT003


@pytest.mark.parametrize(("lost", "is_due", "holds"), [(0, False, True), (1, False, False), (9, True, True)])
def test_loss_holds_only_where_it_is_due(lost: int, is_due: bool, holds: bool) -> None:  # noqa: FBT001
    assert trial(lost=lost, lost_is_due=is_due).holds is holds


def test_fault_that_should_lose_wins_and_lost_none_has_tried_nothing() -> None:
    assert "0 wins were lost" in trial(lost=0, lost_is_due=True).complaints
