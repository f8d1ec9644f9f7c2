"""Wins that have to be sent again, and are paid once all the same."""

from simulator.dialects.values import Facts
from tests.providers.conformance.case import ConformanceCase
from tests.support.stack import Stack


class AsksAgain(ConformanceCase):
    """Tests of a ledger that does not reply in time."""

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
        theirs = self.dialect.at(hasty)
        await stack.open_session(hasty, facts.session_id, facts.player_id)
        with stack.slow():
            response = await stack.send(hasty, theirs.credit(facts))
        theirs.assert_error(response, "unavailable", tx=facts.provider_tx_id)
        for _ in range(50):  # as the provider would
            response = await stack.send(hasty, theirs.credit(facts))
            if b"10.5" in response.content:
                break
        assert theirs.read_paid(response, facts, replay=True).balance == "10.5"
        assert len(await stack.transfers(facts.player_id)) == 1
