"""How many shards a gateway uses: those that workers serve, up to its own setting.

A gateway begins with the first shard, which every installation has, and uses each further one as soon as a
worker has answered an empty batch over it. That is the way of a credit, from the exchange to a reply, so
gateways and workers may be given another number in any order. It is less again when the broker returns a
batch because a shard has no queue: see `BatchDispatcher`.
"""

import asyncio
from typing import Final

import structlog
from prometheus_client import Gauge

from gateway.ledger_client.dispatcher import BatchDispatcher, Send
from shared.errors import LedgerUnavailable

CHECK_SECONDS: Final = 2.0
"""How often a gateway that uses fewer shards than it may looks for more."""

ANSWER_SECONDS_MAX: Final = 2.0
"""How long a worker may take to answer over a shard that is new to the gateway."""

_log = structlog.get_logger()


class ShardSearch:
    """The search of one gateway for the shards that are served."""

    def __init__(self, lanes: BatchDispatcher, send: Send, shards_max: int) -> None:
        """Take the lanes that are to use the shards, what sends a batch, and the gateway's setting."""
        self._lanes: Final = lanes
        self._send: Final = send
        self._shards_max: Final = shards_max
        self._logged = 0
        self.gauge: Final = Gauge("credits_gateway_shards", "Shards in use", registry=None)
        self.gauge.set_function(lambda: lanes.shards)

    async def keep_looking(self) -> None:
        """Look for more shards, as often as there may be some, until cancelled."""
        while True:
            if self._lanes.shards < self._shards_max:
                await self._look()
            if (shards := self._lanes.shards) != self._logged:
                self._logged = shards
                log = _log.info if shards == self._shards_max else _log.warning
                log("shards in use", shards=shards, setting=self._shards_max)
            await asyncio.sleep(CHECK_SECONDS)

    async def _look(self) -> None:
        """Ask over the next shard, and over all that may follow if that one is served."""
        used = self._lanes.shards
        if not await self._is_served(used):
            return
        others = range(used + 1, self._shards_max)
        are_served = await asyncio.gather(*(self._is_served(shard) for shard in others))
        if self._lanes.shards == used:  # else one that was in use has no queue any more
            self._lanes.use_shards(used + 1 + [*are_served, False].index(False))

    async def _is_served(self, shard: int) -> bool:
        try:
            await self._send(shard, [], asyncio.get_running_loop().time() + ANSWER_SECONDS_MAX)
        except LedgerUnavailable:
            return False
        return True
