"""The base of the suite's tests: it sends callbacks in a dialect, and reads the replies."""

from typing import ClassVar

import httpx

from gateway.providers.base import Callback
from simulator.dialects.base import IN_DOLLARS, NEXT, Dialect, readable
from simulator.dialects.values import Facts, Paid
from tests.support.stack import Stack


class ConformanceCase:
    """Tests of one provider; `stack`, `facts` and `other` are fixtures of the folder above."""

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
