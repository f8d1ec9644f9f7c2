"""Wins that are paid, and the replies to them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from simulator.dialects.values import Facts
from tests.providers.conformance.case import ConformanceCase
from tests.support.hostile import NOTHING_NEEDED
from tests.support.stack import Posted, Stack


class PaysWins(ConformanceCase):
    """Tests of wins that are paid."""

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

    async def test_half_of_a_surrogate_pair_costs_no_win(self, stack: Stack, facts: Facts) -> None:
        """A provider that cuts a text by UTF-16 units may cut through an emoji."""
        halves = rb',"nobody reads \ud83d":["won \uDE00\ud83d","\\\ud83d","\ud83d\ude00"]}'
        request = self.dialect.raw(self.dialect.credit(facts).body[:-1] + halves, facts=facts)
        for replay in (False, True):
            self.dialect.read_paid(await self.send(stack, request), facts, replay=replay)
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

    async def test_exponent_is_paid_where_it_is_exact(self, stack: Stack, facts: Facts) -> None:
        for written, minor in (
            ("1.0E7", 10**9),
            ("1E-2", 1),
            ("105e-1", 1050),
            ("0.25E+2", 2500),
            ("0E0", 0),
        ):
            win, before = facts.another(), await stack.balance(facts.player_id)
            response = await self.send(stack, self.dialect.with_amount(win, written))
            self.dialect.read_paid(response, win, replay=False)
            assert await stack.balance(facts.player_id) == before + minor

    async def test_field_that_money_does_not_need_costs_no_win_whatever_it_holds(
        self, stack: Stack, facts: Facts
    ) -> None:
        paid = 0
        for name in self.dialect.optional(facts):
            for value in NOTHING_NEEDED:
                await self.pay_fields(stack, facts.another(), {name: value})
                paid += 1
        await self.pay_fields(stack, facts.another(), {}, without=self.dialect.optional(facts))
        assert await stack.balance(facts.player_id) == (paid + 1) * 1050

    async def pay_fields(self, stack: Stack, win: Facts, changes: dict[str, Any], without: Sequence[str] = ()) -> None:
        fields = {k: v for k, v in {**self.dialect.fields(win), **changes}.items() if k not in without}
        response = await self.send(stack, self.dialect.signed(fields, facts=win))
        try:
            self.dialect.read_paid(response, win, replay=False)
        except AssertionError as error:
            raise AssertionError(f"{changes!r:.200}: {response.text}") from error

    async def test_round_that_can_not_be_looked_up_is_recorded(self, stack: Stack, facts: Facts) -> None:
        if "round_id" in self.dialect.silent_about:
            return
        for round_id in ("x" * 1_001, "round\n1", "玩" * 700):
            win = facts.another(round_id=round_id)
            await self.pay(stack, win)
            posted = (await stack.transfers(facts.player_id))[-1]
            assert posted.round_id is None
            assert round_id[:1_000] in posted.details.values()

    async def test_round_of_a_thousand_characters_is_stored(self, stack: Stack, facts: Facts) -> None:
        if "round_id" in self.dialect.silent_about:
            return
        for round_id in ("x" * 1_000, "玩" * 600):
            await self.pay(stack, facts.another(round_id=round_id))
            assert (await stack.transfers(facts.player_id))[-1].round_id == round_id
