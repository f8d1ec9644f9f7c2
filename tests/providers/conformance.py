"""What every provider certifies before it goes live, asked of each of ours in its own words.

A provider's test module subclasses `Conformance` and names its dialect. Each test says what a user would
lose, and looks at the exact reply and at the books.
"""

import asyncio
import json
from collections import Counter
from typing import Any, ClassVar

import httpx
import pytest

from gateway.providers.contract import Callback
from shared.credit import FINGERPRINT
from tests.providers.dialect import (
    FOREIGN_KEY,
    IN_DOLLARS,
    NEXT,
    PREVIOUS_KEY,
    Dialect,
    Facts,
    Paid,
    readable,
)
from tests.providers.hostile import INJECTIONS, NO_AMOUNT_TEXTS, NO_AMOUNTS, NO_JSON
from tests.providers.stack import Posted, Stack


class Conformance:
    """The tests; `stack`, `facts` and `other` are fixtures of this folder."""

    dialect: ClassVar[Dialect]

    async def send(self, stack: Stack, callback: Callback, method: str = "POST") -> httpx.Response:
        return await stack.send(self.dialect.name, callback, method)

    async def pay(self, stack: Stack, facts: Facts, *, replay: bool = False) -> Paid:
        response = await self.send(stack, self.dialect.credit(facts))
        return self.dialect.read_paid(response, facts, replay=replay)

    async def assert_refused(self, stack: Stack, callback: Callback, what: str) -> None:
        """Assert that a callback gets its error and moves nothing."""
        before = await stack.transfers()
        response = await self.send(stack, callback)
        tx = readable(callback.body, self.dialect.tx_field)
        self.dialect.assert_error(response, what, tx=tx)
        assert await stack.transfers() == before

    async def open_further_sessions(self, stack: Stack, facts: Facts) -> None:
        """Open the player's next session, and one in dollars."""
        await stack.add_player(facts.player_id, "USD")
        for ending, currency in ((NEXT, "EUR"), (IN_DOLLARS, "USD")):
            await stack.open_session(self.dialect.name, facts.session_id + ending, facts.player_id, currency)

    # What is paid

    async def test_win_is_paid_and_the_reply_says_so(self, stack: Stack, facts: Facts) -> None:
        paid = await self.pay(stack, facts)
        assert paid.balance == "10.5"
        assert paid.real_amount in {None, "10.5"}
        assert paid.bonus_amount in {None, "0"}
        [posted] = await stack.transfers(facts.player_id)
        assert posted == Posted(
            integration=self.dialect.name,
            provider_tx_id=facts.provider_tx_id,
            player_id=facts.player_id,
            currency="EUR",
            amount_minor=1050,
            real_minor=1050,
            bonus_minor=0,
            **self.dialect.recorded(facts),
        )
        assert await stack.balance(facts.player_id) == 1050

    async def test_lost_bet_is_recorded_and_pays_nothing(self, stack: Stack, facts: Facts) -> None:
        for amount in ("0", "0.00"):
            assert (await self.pay(stack, facts.another(amount=amount))).balance == "0"
        assert [posted.amount_minor for posted in await stack.transfers(facts.player_id)] == [0, 0]
        assert await stack.balance(facts.player_id) == 0

    async def test_lost_bet_told_again_is_one_lost_bet(self, stack: Stack, facts: Facts) -> None:
        first = await self.pay(stack, facts.but(amount="0"))
        assert await self.pay(stack, facts.but(amount="0.00"), replay=True) == first
        assert len(await stack.transfers(facts.player_id)) == 1

    async def test_win_without_a_bet_is_paid(self, stack: Stack, facts: Facts) -> None:
        response = await self.send(stack, self.dialect.without_bet(facts))
        assert self.dialect.read_paid(response, facts, replay=False).balance == "10.5"
        assert await stack.balance(facts.player_id) == 1050

    async def test_two_wins_in_one_round_are_both_paid(self, stack: Stack, facts: Facts) -> None:
        first, second = await self.pay(stack, facts), await self.pay(stack, facts.another())
        assert first.transfer_id != second.transfer_id
        assert (first.balance, second.balance) == ("10.5", "21")
        assert await stack.balance(facts.player_id) == 2100

    async def test_win_after_the_session_closed_is_paid(self, stack: Stack, facts: Facts) -> None:
        await stack.close_session(self.dialect.name, facts.session_id)
        assert (await self.pay(stack, facts)).balance == "10.5"
        assert await stack.balance(facts.player_id) == 1050

    async def test_win_with_an_empty_or_unknown_session_is_paid_where_the_player_is_known(
        self, stack: Stack, facts: Facts
    ) -> None:
        for session_id in ("", "unknown-session"):
            win = facts.another(session_id=session_id)
            if self.dialect.player_field is None:
                await self.assert_refused(stack, self.dialect.credit(win), "unknown_session")
            else:
                await self.pay(stack, win)
        expected = 0 if self.dialect.player_field is None else 2100
        assert await stack.balance(facts.player_id) == expected

    async def test_ten_wins_at_once_add_up_to_the_minor_unit(self, stack: Stack, facts: Facts) -> None:
        wins = [facts.another(amount=f"0.{n:02}") for n in range(1, 11)]
        paid = await asyncio.gather(*(self.pay(stack, win) for win in wins))
        assert len({answer.transfer_id for answer in paid}) == 10
        assert await stack.balance(facts.player_id) == sum(range(1, 11))
        assert max(answer.balance for answer in paid) == "0.55"

    async def test_largest_amount_is_paid_and_the_next_cent_is_not(self, stack: Stack, facts: Facts) -> None:
        largest = "9999999999999999.99"
        assert (await self.pay(stack, facts.but(amount=largest))).balance == largest
        one_more = self.dialect.credit(facts.another(amount="0.01"))
        await self.assert_refused(stack, one_more, "balance_limit")
        assert await stack.balance(facts.player_id) == 10**18 - 1

    async def test_trailing_zeros_change_nothing(self, stack: Stack, facts: Facts) -> None:
        response = await self.send(stack, self.dialect.with_amount(facts, "10.5000"))
        paid = self.dialect.read_paid(response, facts, replay=False)
        response = await self.send(stack, self.dialect.with_amount(facts, "10.5"))
        assert self.dialect.read_paid(response, facts, replay=True) == paid

    # What is paid once

    async def test_same_win_sent_later_is_paid_once_and_answered_as_before(
        self, stack: Stack, facts: Facts
    ) -> None:
        first = await self.pay(stack, facts)
        await self.pay(stack, facts.another())
        assert await self.pay(stack, facts, replay=True) == first
        assert await stack.balance(facts.player_id) == 2100
        assert len(await stack.transfers(facts.player_id)) == 2

    async def test_same_win_sent_ten_times_at_once_is_paid_once(self, stack: Stack, facts: Facts) -> None:
        callback = self.dialect.credit(facts)
        responses = await asyncio.gather(*(self.send(stack, callback) for _ in range(10)))
        assert await stack.balance(facts.player_id) == 1050
        [_] = await stack.transfers(facts.player_id)
        bodies = Counter(response.content for response in responses)
        first = await self.pay(stack, facts, replay=True)
        # One reply may differ from the others, where the provider wants to know that it was the first.
        assert len(bodies) <= 2
        assert all(first.transfer_id.encode() in body for body in bodies)

    async def test_retry_with_a_new_request_id_and_timestamp_is_the_same_win(
        self, stack: Stack, facts: Facts
    ) -> None:
        first = await self.pay(stack, facts)
        assert await self.pay(stack, facts.but(delivery=2), replay=True) == first
        assert await stack.balance(facts.player_id) == 1050

    async def test_known_id_with_other_content_moves_nothing(
        self, stack: Stack, facts: Facts, other: Facts
    ) -> None:
        await self.open_further_sessions(stack, facts)
        first = await self.pay(stack, facts)
        for what, _, callback in self.dialect.altered(facts, other):
            before = await stack.transfers()
            response = await self.send(stack, callback)
            self.dialect.assert_error(response, "conflict", tx=facts.provider_tx_id)
            assert await stack.transfers() == before, what
        assert await self.pay(stack, facts, replay=True) == first
        assert (await stack.balance(facts.player_id), await stack.balance(other.player_id)) == (1050, 0)
        assert await stack.balance(facts.player_id, "USD") == 0

    async def test_conflict_names_exactly_what_differs_in_the_log_the_metrics_and_the_books(
        self, stack: Stack, facts: Facts, other: Facts
    ) -> None:
        await self.open_further_sessions(stack, facts)
        await self.pay(stack, facts)
        offers = []
        for field, offered, callback in self.dialect.altered(facts, other):
            counted = await stack.conflicts_counted(self.dialect.name)
            with stack.logged() as lines:
                await self.send(stack, callback)
            [line] = [line for line in lines if line["log_level"] == "error"]
            assert (
                line.items()
                >= {
                    "event": "callback",
                    "integration": self.dialect.name,
                    "provider_tx_id": facts.provider_tx_id,
                    "outcome": "conflict",
                    "differing": (field,),
                }.items()
            )
            assert await stack.conflicts_counted(self.dialect.name) - counted == Counter({field: 1})
            offers.append({field: offered})
            assert await stack.conflicts(facts.provider_tx_id) == offers
            await self.send(stack, callback)
            assert await stack.conflicts(facts.provider_tx_id) == offers, "one offer is kept once"

    def test_every_field_of_the_fingerprint_is_tried_or_can_not_be_said(self) -> None:
        facts = Facts("player1", "session-1")
        tried = {altered.field for altered in self.dialect.altered(facts, facts.but(player_id="player2"))}
        assert tried | self.dialect.silent_about == set(FINGERPRINT)
        assert not tried & self.dialect.silent_about

    async def test_same_win_delivered_otherwise_is_answered_with_the_original(
        self, stack: Stack, facts: Facts
    ) -> None:
        await self.open_further_sessions(stack, facts)
        first = await self.pay(stack, facts)
        await self.pay(stack, facts.another())
        for what, callback in self.dialect.redelivered(facts):
            response = await self.send(stack, callback)
            assert self.dialect.read_paid(response, facts, replay=True) == first, what
        assert await stack.balance(facts.player_id) == 2100
        assert await stack.conflicts(facts.provider_tx_id) == []

    async def test_one_id_for_two_players_at_once_pays_one_of_them(
        self, stack: Stack, facts: Facts, other: Facts
    ) -> None:
        theirs = other.but(provider_tx_id=facts.provider_tx_id)
        callbacks = [self.dialect.credit(facts), self.dialect.credit(theirs)]
        await asyncio.gather(*(self.send(stack, callback) for callback in callbacks))
        balances = [await stack.balance(facts.player_id), await stack.balance(other.player_id)]
        assert sorted(balances) == [0, 1050]

    async def test_one_id_from_two_integrations_is_two_wins(self, stack: Stack, facts: Facts) -> None:
        second = self.dialect.second_brand
        await stack.open_session(second, facts.session_id, facts.player_id)
        await self.pay(stack, facts)
        response = await stack.send(second, self.dialect.credit(facts))
        assert self.dialect.read_paid(response, facts, replay=False).balance == "21"

    # What is refused

    async def test_forged_win_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        before = await stack.transfers()
        for what, callback in self.dialect.forged(facts):
            response = await self.send(stack, callback)
            tx = readable(callback.body, self.dialect.tx_field)
            try:
                self.dialect.assert_error(response, "bad_signature", tx=tx)
            except AssertionError as error:
                raise AssertionError(f"signature {what}: {response.text}") from error
        assert await stack.transfers() == before

    async def test_both_secrets_pass_while_one_replaces_the_other(self, stack: Stack, facts: Facts) -> None:
        response = await self.send(stack, self.dialect.credit(facts, PREVIOUS_KEY))
        paid = self.dialect.read_paid(response, facts, replay=False)
        assert await self.pay(stack, facts, replay=True) == paid
        await self.assert_refused(stack, self.dialect.credit(facts.another(), FOREIGN_KEY), "bad_signature")

    @pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
    async def test_body_that_is_no_request_gets_the_providers_own_error(
        self, stack: Stack, facts: Facts, body: bytes
    ) -> None:
        await self.assert_refused(stack, self.dialect.raw(body, facts=facts), "malformed")

    async def test_cut_request_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        whole = self.dialect.credit(facts).body
        for size in range(1, len(whole), 11):
            await self.assert_refused(stack, self.dialect.raw(whole[:size], facts=facts), "malformed")

    async def test_bytes_that_are_no_text_are_told_wherever_they_stand(
        self, stack: Stack, facts: Facts
    ) -> None:
        for strange in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80"):
            body = self.dialect.credit(facts).body[:-1] + b',"nobody reads this":"' + strange + b'"}'
            await self.assert_refused(stack, self.dialect.raw(body, facts=facts), "malformed")

    async def test_required_field_that_is_missing_or_of_another_kind_is_told(
        self, stack: Stack, facts: Facts
    ) -> None:
        fields = self.dialect.fields(facts)
        for name in self.dialect.required:
            without = {key: value for key, value in fields.items() if key != name}
            for changed in (without, {**fields, name: None}, {**fields, name: []}, {**fields, name: {}}):
                await self.assert_refused(stack, self.dialect.signed(changed, facts=facts), "malformed")

    async def test_field_that_is_too_long_is_told(self, stack: Stack, facts: Facts) -> None:
        for name, value in self.dialect.fields(facts).items():
            if isinstance(value, str):
                changed = {**self.dialect.fields(facts), name: "x" * 2_000}
                await self.assert_refused(stack, self.dialect.signed(changed, facts=facts), "malformed")

    async def test_text_that_no_database_holds_is_told(self, stack: Stack, facts: Facts) -> None:
        for name, value in self.dialect.fields(facts).items():
            if isinstance(value, str):
                changed = {**self.dialect.fields(facts), name: f"{value}\0"}
                request = self.dialect.signed(changed, facts=facts)
                before = await stack.transfers()
                response = await self.send(stack, request)
                assert response.status_code < 500
                assert await stack.transfers() == before, name

    async def test_fields_that_nobody_announced_cost_no_win(self, stack: Stack, facts: Facts) -> None:
        more: dict[str, Any] = {"new": {"deep": [1, 2.5, None]}, "Ünï": "çødé", "": ""}
        request = self.dialect.signed({**self.dialect.fields(facts), **more}, facts=facts)
        response = await self.send(stack, request)
        assert self.dialect.read_paid(response, facts, replay=False).balance == "10.5"

    @pytest.mark.parametrize("text", INJECTIONS)
    async def test_any_text_is_kept_as_it_came(self, stack: Stack, facts: Facts, text: str) -> None:
        fields = {**self.dialect.fields(facts), self.dialect.free_text_field: text}
        for replay in (False, True):
            response = await self.send(stack, self.dialect.signed(fields, facts=facts))
            self.dialect.read_paid(response, facts, replay=replay)
        [posted] = await stack.transfers(facts.player_id)
        assert text in {posted.round_id, *posted.details.values()}

    @pytest.mark.parametrize("written", NO_AMOUNTS)
    async def test_amount_that_is_no_amount_moves_nothing(
        self, stack: Stack, facts: Facts, written: str
    ) -> None:
        await self.assert_refused(stack, self.dialect.with_amount(facts, written), "malformed")

    @pytest.mark.parametrize("text", NO_AMOUNT_TEXTS)
    async def test_amount_text_with_anything_around_it_moves_nothing(
        self, stack: Stack, facts: Facts, text: str
    ) -> None:
        written = json.dumps(text) if self.dialect.amount_is_number else text
        await self.assert_refused(stack, self.dialect.with_amount(facts, written), "malformed")

    async def test_unknown_player_is_told_so(self, stack: Stack, facts: Facts) -> None:
        for player_id in ("nobody", "DROPTABLEplayers"):
            nobody = facts.another(player_id=player_id, session_id="of-nobody")
            await self.assert_refused(stack, self.dialect.credit(nobody), self.dialect.unknown_player)

    async def test_players_ids_are_matched_to_the_letter(self, stack: Stack, facts: Facts) -> None:
        shouted = facts.but(player_id=facts.player_id.upper(), session_id=facts.session_id.upper())
        await self.assert_refused(stack, self.dialect.credit(shouted), self.dialect.unknown_player)

    async def test_wrong_content_type_is_told_and_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        right = self.dialect.credit(facts)
        for content_type in ("text/plain", "application/xml", "multipart/form-data; boundary=x", "json"):
            wrong = right._replace(headers={**right.headers, "content-type": content_type})
            before = await stack.transfers()
            self.dialect.assert_error(await self.send(stack, wrong), "malformed", tx=None)
            assert await stack.transfers() == before

    async def test_content_type_may_name_its_charset_or_be_left_out(self, stack: Stack, facts: Facts) -> None:
        for content_type in ("application/json; charset=utf-8", "Application/JSON", None):
            right = self.dialect.credit(facts.another())
            headers = {name: value for name, value in right.headers.items() if name != "content-type"}
            if content_type is not None:
                headers["content-type"] = content_type
            response = await self.send(stack, right._replace(headers=headers))
            assert response.status_code == 200
        assert await stack.balance(facts.player_id) == 3 * 1050

    async def test_body_that_is_too_big_is_told_and_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        padded = self.dialect.credit(facts).body + b" " * 70_000
        before = await stack.transfers()
        response = await self.send(stack, self.dialect.raw(padded, facts=facts))
        self.dialect.assert_error(response, "malformed", tx=None)
        assert await stack.transfers() == before

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    async def test_another_method_moves_nothing(self, stack: Stack, facts: Facts, method: str) -> None:
        before = await stack.transfers()
        response = await self.send(stack, self.dialect.credit(facts), method)
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert await stack.transfers() == before

    # What has to be sent again

    async def test_win_without_a_ledger_is_to_be_sent_again(self, stack: Stack, facts: Facts) -> None:
        with stack.unreachable():
            await self.assert_refused(stack, self.dialect.credit(facts), "unavailable")
        assert (await self.pay(stack, facts)).balance == "10.5"

    async def test_win_whose_reply_was_lost_is_paid_once(self, stack: Stack, facts: Facts) -> None:
        with stack.reply_lost():
            response = await self.send(stack, self.dialect.credit(facts))
        self.dialect.assert_error(response, "unavailable", tx=facts.provider_tx_id)
        assert await stack.balance(facts.player_id) == 1050
        await self.pay(stack, facts.another())
        assert (await self.pay(stack, facts, replay=True)).balance == "10.5"
        assert await stack.balance(facts.player_id) == 2100

    async def test_win_that_takes_too_long_is_to_be_sent_again(self, stack: Stack, facts: Facts) -> None:
        hasty = self.dialect.hasty
        await stack.open_session(hasty, facts.session_id, facts.player_id)
        with stack.slow():
            response = await stack.send(hasty, self.dialect.credit(facts))
        self.dialect.assert_error(response, "unavailable", tx=facts.provider_tx_id)
        for _ in range(50):  # as the provider would
            response = await stack.send(hasty, self.dialect.credit(facts))
            if b"10.5" in response.content:
                break
        assert self.dialect.read_paid(response, facts, replay=True).balance == "10.5"
        assert len(await stack.transfers(facts.player_id)) == 1
