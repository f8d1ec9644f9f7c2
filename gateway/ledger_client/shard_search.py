"""Finds out how many shards are served by workers; a gateway uses those, up to its own setting.

A gateway starts with the first shard, which every installation has, and adds each further one as soon as a worker
has answered an empty batch over it. That batch takes the same way as a credit, from the exchange to the reply, so
gateways and workers may be given a new number of shards in any order. The number shrinks when the broker returns a
batch because its shard has no queue: see `BatchDispatcher`.
"""

import asyncio
from typing import Final

import structlog
from prometheus_client import Gauge

from gateway.ledger_client.dispatcher import BatchDispatcher, Send
from shared.errors import LedgerUnavailable

CHECK_SECONDS: Final = 2.0
"""How often a gateway that uses fewer shards than its setting probes for more."""

ANSWER_SECONDS_MAX: Final = 2.0
"""How long a worker may take to answer over a shard that is new to the gateway."""

_log = structlog.get_logger()


class ShardSearch:
    """Probes shards that a gateway does not use yet, and has its dispatcher use those that are served."""

    def __init__(self, dispatcher: BatchDispatcher, send: Send, shards_max: int) -> None:
        """Take the dispatcher, the function that sends a batch, and the gateway's setting."""
        self._dispatcher: Final = dispatcher
        self._send: Final = send
        self._shards_max: Final = shards_max
        self._logged = 0
        self.gauge: Final = Gauge("credits_gateway_shards", "Shards in use", registry=None)
        self.gauge.set_function(lambda: dispatcher.shards)

    async def run(self) -> None:
        """Probe for more shards, as often as there may be some, until cancelled."""
        while True:
            if self._dispatcher.shards < self._shards_max:
                await self._probe()
            if (shards := self._dispatcher.shards) != self._logged:
                self._logged = shards
                log = _log.info if shards == self._shards_max else _log.warning
                log("shards in use", shards=shards, setting=self._shards_max)
            await asyncio.sleep(CHECK_SECONDS)

    async def _probe(self) -> None:
        """Probe the next shard and, if it is served, all that may follow; use them up to the first unserved one."""
        used = self._dispatcher.shards
        if not await self._is_served(used):
            return
        others = range(used + 1, self._shards_max)
        are_served = await asyncio.gather(*(self._is_served(shard) for shard in others))
        if self._dispatcher.shards == used:  # else the dispatcher has dropped one that has no queue any more
            self._dispatcher.use_shards(used + 1 + [*are_served, False].index(False))

    async def _is_served(self, shard: int) -> bool:
        try:
            await self._send(shard, [], asyncio.get_running_loop().time() + ANSWER_SECONDS_MAX)
        except LedgerUnavailable:
            return False
        return True
