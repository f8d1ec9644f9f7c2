"""Wins are paid once, however often, at once and in any form they are sent."""

import asyncio
from collections import Counter
from uuid import uuid4

import msgspec
import pytest

from shared.operations import Credit
from simulator.dialects.values import Facts, Paid
from tests.providers.conformance.case import ConformanceCase
from tests.support.stack import Stack


class PaysOnce(ConformanceCase):
    """Tests of repeats and conflicts."""

    async def test_same_win_sent_later_is_paid_once_and_answered_as_before(self, stack: Stack, facts: Facts) -> None:
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

    async def test_retry_with_a_new_request_id_and_timestamp_is_the_same_win(self, stack: Stack, facts: Facts) -> None:
        first = await self.pay(stack, facts)
        assert await self.pay(stack, facts.but(delivery=2), replay=True) == first
        assert await stack.balance(facts.player_id) == 1050

    async def test_known_id_with_other_content_moves_nothing(self, stack: Stack, facts: Facts, other: Facts) -> None:
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
        assert tried | self.dialect.silent_about == set(Credit.FINGERPRINT)
        assert not tried & self.dialect.silent_about

    async def test_same_win_delivered_otherwise_is_answered_with_the_original(self, stack: Stack, facts: Facts) -> None:
        await self.open_further_sessions(stack, facts)
        first = await self.pay(stack, facts)
        await self.pay(stack, facts.another())
        for what, callback in self.dialect.redelivered(facts):
            response = await self.send(stack, callback)
            assert self.dialect.read_paid(response, facts, replay=True) == first, what
        assert await stack.balance(facts.player_id) == 2100
        assert await stack.conflicts(facts.provider_tx_id) == []

    @pytest.mark.parametrize("number_first", [True, False])
    async def test_id_that_is_a_whole_number_is_the_id_of_its_digits(
        self,
        stack: Stack,
        facts: Facts,
        number_first: bool,  # noqa: FBT001  (a parameter)
    ) -> None:
        for digits in (str(10**17 + uuid4().int % 10**17), str(10**47 + uuid4().int % 10**47)):
            await stack.add_player(digits, "EUR")
            forms = [dict.fromkeys(self.dialect.number_ids, form) for form in (int_of(digits), digits)]
            fields = self.dialect.fields(facts.another())
            requests = [self.dialect.signed({**fields, **form}, facts=facts) for form in forms]
            paid: list[Paid] = []
            for request in requests if number_first else reversed(requests):
                win = facts.but(provider_tx_id=fields[self.dialect.tx_field])
                response = await self.send(stack, request)
                paid.append(self.dialect.read_paid(response, win, replay=bool(paid)))
            assert paid[0] == paid[1]
            assert await stack.conflicts(digits) == []
            names_player = self.dialect.player_field in self.dialect.number_ids
            assert len(await stack.transfers(digits if names_player else facts.player_id)) >= 1

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
        theirs = self.dialect.at(second)
        await stack.open_session(second, facts.session_id, facts.player_id)
        await self.pay(stack, facts)
        response = await stack.send(second, theirs.credit(facts))
        assert theirs.read_paid(response, facts, replay=False).balance == "21"


def int_of(digits: str) -> msgspec.Raw:
    """Return a JSON number of any number of digits."""
    return msgspec.Raw(digits.encode())
