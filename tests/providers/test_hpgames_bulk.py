"""HPGames' bulk credit: every item on its own, in one request."""

import asyncio
from typing import Any, Final

import httpx
import pytest

from gateway.callback import REJECTED_ITEMS_MAX
from gateway.providers.base import Callback
from simulator.dialects.base import FOREIGN_KEY
from simulator.dialects.hpgames import DIALECT, sent
from simulator.dialects.values import Facts
from tests.support.stack import Stack

SMALL: Final = "hpgames-small"
SHORT: Final = DIALECT.at(SMALL)
INTEGRATIONS: Final = {
    SMALL: {**SHORT.settings, "bulk_items_max": 3, "bulk_body_bytes_max": 4_096},
}


def _bulk(*items: Callback | bytes) -> Callback:
    bodies = b",".join(item if isinstance(item, bytes) else item.body for item in items)
    return sent(b'{"creditRequests":[' + bodies + b"]}")._replace(path="bulkCredit")


def _answers(response: httpx.Response) -> list[dict[str, Any]]:
    said = DIALECT.exact_fields(response)
    assert response.status_code == 200
    assert list(said) == ["creditResponses"]
    answers = said["creditResponses"]
    assert isinstance(answers, list)
    return answers


async def test_bulk_pays_each_and_answers_in_order(stack: Stack, facts: Facts, other: Facts) -> None:
    wins = [facts.another(amount=f"{n}.01", player_id=p) for n in range(20) for p in (facts.player_id, other.player_id)]
    answers = _answers(await stack.send("hpgames", _bulk(*map(DIALECT.credit, wins))))
    for win, answer in zip(wins, answers, strict=True):
        DIALECT.read_paid_item(answer, win, replay=False)
    assert await stack.balance(facts.player_id) == await stack.balance(other.player_id) == 19_020


async def test_bulk_item_with_a_bad_hash_spoils_no_other(stack: Stack, facts: Facts) -> None:
    wins = [facts.another() for _ in range(5)]
    items = [DIALECT.credit(win) for win in wins]
    items[2] = DIALECT.credit(wins[2], FOREIGN_KEY)
    answers = _answers(await stack.send("hpgames", _bulk(*items)))
    for place, (win, answer) in enumerate(zip(wins, answers, strict=True)):
        if place == 2:
            DIALECT.assert_error_item(answer, "bad_signature", tx=win.provider_tx_id)
        else:
            DIALECT.read_paid_item(answer, win, replay=False)
    assert await stack.balance(facts.player_id) == 4 * 1050


async def test_bulk_items_that_are_no_credits_get_errors_of_their_own(stack: Stack, facts: Facts) -> None:
    strange = (b"5", b"null", b'"x"', b"[]", b"{}", b'{"transactionId":"t-1"}', b"[" * 50 + b"]" * 50)
    win = facts.another()
    answers = _answers(await stack.send("hpgames", _bulk(*strange, DIALECT.credit(win))))
    *errors, paid = answers
    for item, error in zip(strange, errors, strict=True):
        DIALECT.assert_error_item(error, "malformed", tx="t-1" if b"t-1" in item else None)
    DIALECT.read_paid_item(paid, win, replay=False)
    assert len(await stack.transfers(facts.player_id)) == 1


async def test_bulk_pays_a_win_that_it_holds_twice_once(stack: Stack, facts: Facts) -> None:
    again = facts.but(delivery=2)
    other_amount = facts.but(amount="99.00")
    items = [DIALECT.credit(win) for win in (facts, again, other_amount)]
    first, second, third = _answers(await stack.send("hpgames", _bulk(*items)))
    assert DIALECT.read_paid_item(first, facts, replay=False) == DIALECT.read_paid_item(second, again, replay=True)
    DIALECT.assert_error_item(third, "conflict", tx=facts.provider_tx_id)
    assert await stack.balance(facts.player_id) == 1050


async def test_bulk_sent_again_pays_nothing_and_answers_as_before(stack: Stack, facts: Facts) -> None:
    request = _bulk(*(DIALECT.credit(facts.another()) for _ in range(10)))
    first = await stack.send("hpgames", request)
    second = await stack.send("hpgames", request)
    assert first.content == second.content
    assert await stack.balance(facts.player_id) == 10 * 1050


async def test_bulk_keeps_each_items_own_bytes(stack: Stack, facts: Facts) -> None:
    fields = DIALECT.with_amount(facts, "5.00").body
    spaced = fields.replace(b",", b" ,\n\t ").replace(b'{"', b'{ "extra" : [1.50, {"a":"\\u00e9"}] , "')
    [answer] = _answers(await stack.send("hpgames", _bulk(spaced)))
    assert DIALECT.read_paid_item(answer, facts, replay=False).balance == "5"


async def test_empty_bulk_gets_an_empty_reply(stack: Stack) -> None:
    assert _answers(await stack.send("hpgames", _bulk())) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"creditRequests":null}',
        b'{"creditRequests":{}}',
        b'{"creditRequests":[1,]}',
        b'{"x',
    ],
)
async def test_bulk_that_is_none_gets_one_error(stack: Stack, body: bytes) -> None:
    response = await stack.send("hpgames", sent(body)._replace(path="bulkCredit"))
    DIALECT.assert_error(response, "malformed", tx=None)


async def test_bulk_of_too_many_posts_nothing(stack: Stack, facts: Facts) -> None:
    wins = [facts.another() for _ in range(4)]
    response = await stack.send(SMALL, _bulk(*map(SHORT.credit, wins)))
    DIALECT.assert_error(response, "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []
    assert len(_answers(await stack.send(SMALL, _bulk(*map(SHORT.credit, wins[:3]))))) == 3
    assert await stack.balance(facts.player_id) == 3 * 1050


async def test_bulk_of_too_many_bytes_posts_nothing(stack: Stack, facts: Facts) -> None:
    padded = _bulk(SHORT.credit(facts))
    response = await stack.send(SMALL, padded._replace(body=padded.body + b" " * 4_096))
    DIALECT.assert_error(response, "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_bulk_may_be_larger_than_a_single_credit(stack: Stack, facts: Facts) -> None:
    wins = [facts.another(amount="0.01") for _ in range(1_000)]
    request = _bulk(*map(DIALECT.credit, wins))
    assert len(request.body) > 65_536
    for _ in range(20):  # what was not answered in time is sent again, as HPGames would
        answers = _answers(await stack.send("hpgames", request))
        if all(answer["errorCode"] == "0" for answer in answers):
            break
    assert [answer["transactionId"] for answer in answers] == [win.provider_tx_id for win in wins]
    assert await stack.balance(facts.player_id) == 1_000


async def test_bulk_without_a_ledger_is_to_be_sent_again(stack: Stack, facts: Facts) -> None:
    wins = [facts.another() for _ in range(3)]
    request = _bulk(*map(DIALECT.credit, wins))
    with stack.unreachable():
        for win, answer in zip(wins, _answers(await stack.send("hpgames", request)), strict=True):
            DIALECT.assert_error_item(answer, "unavailable", tx=win.provider_tx_id)
    for win, answer in zip(wins, _answers(await stack.send("hpgames", request)), strict=True):
        DIALECT.read_paid_item(answer, win, replay=False)


async def test_bulk_of_nothings_is_one_line_in_the_log(stack: Stack) -> None:
    with stack.logged() as lines:
        answers = _answers(await stack.send("hpgames", _bulk(*[b"{}"] * 1_000)))
    for answer in answers[:REJECTED_ITEMS_MAX]:
        DIALECT.assert_error_item(answer, "malformed", tx=None)
    line, *more = [line for line in lines if "integration" in line]
    assert more == []
    assert line.items() >= {"event": "items summed up", "items": 1_000, "malformed": REJECTED_ITEMS_MAX}.items()


async def test_bulk_that_begins_with_many_bad_items_is_to_be_sent_again(stack: Stack, facts: Facts) -> None:
    for bad, result in ((REJECTED_ITEMS_MAX - 1, None), (REJECTED_ITEMS_MAX, "unavailable")):
        win = facts.another()
        request = _bulk(*[b"{}"] * bad, DIALECT.credit(win))
        answer = _answers(await stack.send("hpgames", request))[-1]
        if result is None:
            DIALECT.read_paid_item(answer, win, replay=False)
        else:
            DIALECT.assert_error_item(answer, result, tx=win.provider_tx_id)


async def test_bulk_logs_each_win_and_sums_up_what_was_refused(stack: Stack, facts: Facts) -> None:
    wins = [facts.another() for _ in range(5)]
    forged = [DIALECT.credit(win, FOREIGN_KEY) for win in wins[:3]]
    with stack.logged() as lines:
        await stack.send("hpgames", _bulk(*forged, *map(DIALECT.credit, wins[3:]), b"null"))
    summed = [line for line in lines if line["event"] == "items summed up"]
    assert [(line["items"], line["bad_signature"], line["malformed"]) for line in summed] == [(4, 3, 1)]
    assert summed[0]["log_level"] == "warning"
    paid = [line["provider_tx_id"] for line in lines if line["event"] == "callback"]
    assert paid == [win.provider_tx_id for win in wins[3:]]


async def test_bulk_of_copies_is_two_lines_in_the_log(stack: Stack, facts: Facts) -> None:
    """Whoever has captured one item can send it any number of times, and altered where it is not signed."""
    other = facts.but(amount="99.00")
    with stack.logged() as lines:
        answers = _answers(await stack.send("hpgames", _bulk(*map(DIALECT.credit, [facts] * 50 + [other] * 50))))
    DIALECT.read_paid_item(answers[0], facts, replay=False)
    DIALECT.assert_error_item(answers[-1], "conflict", tx=facts.provider_tx_id)
    posted, summed = [line for line in lines if "integration" in line]
    assert (posted["event"], posted["outcome"]) == ("callback", "posted")
    counted = {name: summed[name] for name in ("event", "items", "replayed", "conflict")}
    assert counted == {"event": "items summed up", "items": 99, "replayed": 49, "conflict": 50}


async def test_bulk_of_far_too_many_items_is_not_taken_apart(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("gateway.providers.bulk.decode")  # which would take it apart
    response = await stack.send(SMALL, _bulk(*[b"1"] * (3 * 64 + 2)))
    DIALECT.assert_error(response, "malformed", tx=None)


@pytest.mark.parametrize("tx_id", ["1", '"' + "x" * 1_001 + '"', '"\\u0000"', "null", '{"a":1}'])
async def test_bulk_item_whose_id_is_none_is_answered_without_it(stack: Stack, tx_id: str) -> None:
    item = f'{{"transactionId":{tx_id}}}'.encode()
    for answer in _answers(await stack.send("hpgames", _bulk(item, item))):
        DIALECT.assert_error_item(answer, "malformed", tx=None)


async def test_long_bulk_under_overload_lets_others_have_their_turn(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.time_slices.SLICE_SECONDS", 0)
    monkeypatch.setattr("gateway.ledger_client.concurrency.ConcurrencyLimit.is_exceeded", lambda *_: True)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    answers = _answers(await stack.send("hpgames", _bulk(*[b"{}"] * 500)))
    task.cancel()
    assert [answer["errorCode"] for answer in answers] == ["1008"] * 500
    assert turns >= 500


async def test_bulk_lets_others_have_their_turn_between_its_items(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.time_slices.SLICE_SECONDS", 0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await stack.send("hpgames", _bulk(*[b"{}"] * 500))
    task.cancel()
    assert turns >= 500 + REJECTED_ITEMS_MAX
