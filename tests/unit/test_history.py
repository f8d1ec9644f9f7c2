"""The judge of histories, given histories that are wrong on purpose: each wrong is found, and only it."""

from typing import Any

import msgspec
import pytest

from simulator.history import (
    Attempt,
    Books,
    Content,
    Posted,
    Receipt,
    ReplyMeaning,
    Verdict,
    Violation,
    check_history,
    contradictions,
    served,
)

WIN = Content("klas", "win-1", "anna", "EUR", 1050)
RECEIPT = Receipt("transfer-1", 1050)
POSTED = Posted(WIN, RECEIPT, 1050)
BOOKS = Books([POSTED], {"anna": 1050})
PAID = Attempt(WIN, sent_at=10.0, ended_at=10.1, meaning=ReplyMeaning.PAID, receipt=RECEIPT)


def different(struct: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(struct, **fields)


ALTERED = different(WIN, amount_minor=9999)
NOT_REPLIED = different(PAID, meaning=None, receipt=None)
NO_BOOKS = Books([], {"anna": 0})


def wrongs(verdict: Verdict) -> dict[Violation, int]:
    return {wrong: count for wrong, count in verdict.counts.items() if count}


@pytest.mark.parametrize(
    "attempts",
    [
        [PAID],
        [PAID, PAID],
        [NOT_REPLIED],
        [NOT_REPLIED, different(NOT_REPLIED, meaning=ReplyMeaning.ASK_AGAIN), PAID],
        [PAID, different(NOT_REPLIED, content=ALTERED, meaning=ReplyMeaning.REFUSED)],
        [PAID, different(NOT_REPLIED, content=ALTERED)],
    ],
)
def test_a_right_history_holds(attempts: list[Attempt]) -> None:
    assert check_history(attempts, BOOKS, confirmed=[WIN.identity]).holds


def test_nothing_need_be_posted_of_what_nobody_was_told() -> None:
    assert check_history([NOT_REPLIED, different(NOT_REPLIED, meaning=ReplyMeaning.ASK_AGAIN)], NO_BOOKS).holds


def test_what_players_had_before_counts() -> None:
    books = Books([POSTED], {"anna": 1550, "ben": 7})
    assert check_history([PAID], books, opening_minor={"anna": 500, "ben": 7}).holds
    assert wrongs(check_history([PAID], books)) == {Violation.BALANCE: 2}


@pytest.mark.parametrize(
    ("attempts", "books", "found"),
    [
        pytest.param([PAID], NO_BOOKS, {Violation.MISSING: 1}, id="told as paid, and not there"),
        pytest.param(
            [PAID],
            Books([different(POSTED, entries_minor=1049)], {"anna": 1050}),
            {Violation.MISSING: 1},
            id="a part is missing",
        ),
        pytest.param(
            [PAID],
            Books([POSTED, different(POSTED, receipt=Receipt("transfer-2", 2100))], {"anna": 1050}),
            {Violation.TWICE: 1, Violation.UNTRUE: 1},
            id="two transfers of one id",
        ),
        pytest.param(
            [PAID],
            Books([different(POSTED, entries_minor=2100)], {"anna": 1050}),
            {Violation.TWICE: 1},
            id="one transfer that moved twice its amount",
        ),
        pytest.param([PAID], Books([POSTED], {"anna": 2100}), {Violation.BALANCE: 1}, id="too high a balance"),
        pytest.param([PAID], Books([POSTED], {}), {Violation.BALANCE: 1}, id="no balance"),
        pytest.param([PAID], Books([POSTED], {"anna": 1050, "ben": 1}), {Violation.BALANCE: 1}, id="another's"),
        pytest.param(
            [different(PAID, receipt=Receipt("transfer-2", 1050))],
            BOOKS,
            {Violation.UNTRUE: 1},
            id="another transfer's id was told",
        ),
        pytest.param(
            [PAID, different(PAID, receipt=Receipt("transfer-1", 2100))],
            BOOKS,
            {Violation.UNTRUE: 1},
            id="a repeat was told another balance",
        ),
        pytest.param([different(PAID, receipt=None)], BOOKS, {Violation.UNTRUE: 1}, id="paid, without a receipt"),
        pytest.param(
            [PAID, different(PAID, content=ALTERED)],
            BOOKS,
            {Violation.UNTRUE: 1},
            id="other content was told as paid",
        ),
        pytest.param(
            [different(NOT_REPLIED, meaning=ReplyMeaning.REFUSED)],
            BOOKS,
            {Violation.UNTRUE: 1},
            id="refused, and posted",
        ),
        pytest.param(
            [different(NOT_REPLIED, meaning=ReplyMeaning.GARBLED)],
            BOOKS,
            {Violation.UNTRUE: 1},
            id="a reply that no protocol knows",
        ),
        pytest.param(
            [different(NOT_REPLIED, meaning=ReplyMeaning.REFUSED)],
            NO_BOOKS,
            {Violation.UNTRUE: 1},
            id="a right request was refused",
        ),
        pytest.param([], BOOKS, {Violation.UNSENT: 1}, id="posted, and nobody sent it"),
        pytest.param(
            [different(NOT_REPLIED, content=ALTERED)],
            BOOKS,
            {Violation.UNSENT: 1},
            id="posted with content that nobody sent",
        ),
    ],
)
def test_a_wrong_history_is_found_out(attempts: list[Attempt], books: Books, found: dict[Violation, int]) -> None:
    verdict = check_history(attempts, books)
    assert wrongs(verdict) == found
    assert not verdict.holds


def test_what_the_broker_confirmed_must_be_posted() -> None:
    verdict = check_history([NOT_REPLIED], NO_BOOKS, confirmed=[WIN.identity])
    assert wrongs(verdict) == {Violation.UNPOSTED: 1}
    assert verdict.found[Violation.UNPOSTED] == ["klas win-1"]


def test_what_contradicts_itself_without_the_ledger() -> None:
    refused = different(NOT_REPLIED, content=ALTERED, meaning=ReplyMeaning.REFUSED)
    assert contradictions([PAID, NOT_REPLIED, PAID, refused]) == []
    assert contradictions([PAID, different(PAID, receipt=Receipt("transfer-2", 1050))]) == ["klas win-1"]
    assert contradictions([PAID, different(PAID, content=ALTERED)]) == ["klas win-1"]
    assert contradictions([different(NOT_REPLIED, meaning=ReplyMeaning.GARBLED)]) == ["klas win-1"]


def test_how_providers_were_served() -> None:
    second = different(WIN, provider_tx_id="win-2")
    attempts = [
        different(PAID, sent_at=0.0, ended_at=0.2),
        different(NOT_REPLIED, content=second, sent_at=0.3, ended_at=2.8),
        different(NOT_REPLIED, content=second, sent_at=3.0, ended_at=3.4, meaning=ReplyMeaning.ASK_AGAIN),
        different(PAID, content=second, sent_at=3.2, ended_at=3.6),
        different(NOT_REPLIED, content=different(WIN, provider_tx_id="win-3"), sent_at=3.6, ended_at=3.7),
    ]
    service = served(attempts)
    assert (service.wins, service.requests, service.sent_again) == (3, 5, 2)
    assert (service.unanswered, service.told_to_ask_again, service.unpaid) == (2, 1, 1)
    assert service.unavailable_seconds == pytest.approx(3.4)
    assert service.slowest_seconds == pytest.approx(0.4)


def test_nobody_served() -> None:
    assert served([]).requests == 0
    assert served([NOT_REPLIED]).unavailable_seconds == 0.0
