"""The number of shards changes on a running system, in any order, and nobody is told to ask again.

All processes have the permissions of docs/operations/security.md, and no more.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import aio_pika
from aiormq import Channel

from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.rabbit import RabbitLedgerClient
from shared.broker.connection import raw_channel
from shared.broker.topology import shard_queue
from shared.outcome import Outcome, OutcomeCode
from shared.settings import BrokerSettings
from tests.support.broker_users import url_of
from tests.support.credits import win
from tests.support.metrics import shards_in_use
from tests.support.servers import Servers, fresh_vhost
from tests.support.system import KEYS, Process, System, running_system

BEFORE, MORE, FEWER = 3, 6, 2
PLAYERS: Final = [f"player-{number}" for number in range(20)]
SECONDS_MAX: Final = 30.0
ANSWER_SECONDS_MAX: Final = 20.0
"""A busy machine is not an answer that does not come."""


@dataclass(slots=True)
class Resized:
    """A system whose workers and gateways are given other numbers of shards, while wins are sent."""

    system: System
    owner: Channel
    """Of somebody who may do everything on the broker."""

    gateway_url: str
    gateways: AsyncExitStack
    gateway: RabbitLedgerClient | None = None
    """That wins are sent to, as a load balancer does."""

    outcomes: list[Outcome] = field(default_factory=list)

    async def switch_gateway(self, shards: int, used: int) -> RabbitLedgerClient:
        """Start a gateway with a setting, and send wins to it from when it uses so many shards."""
        settings = BrokerSettings(url=self.gateway_url, shards=shards)
        gateway = await self.gateways.enter_async_context(RabbitLedgerClient(settings, KEYS, ConcurrencyLimit(1_000)))
        await until(lambda: shards_in_use(gateway) == used)
        self.gateway = gateway
        return gateway

    async def restart(self, worker: Process, shards: int) -> None:
        """Restart a worker with a setting."""
        served = worker.log.read_text().count('"worker serves"')
        await worker.end()
        worker.environment = {**worker.environment, "CREDITS_BROKER__SHARDS": str(shards)}
        worker.start()
        await until(lambda: worker.log.read_text().count('"worker serves"') > served)

    async def send(self) -> None:
        """Send a win a moment, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in count():
                if self.gateway is not None:
                    group.create_task(self._send_one(self.gateway, number))
                await asyncio.sleep(0.02)

    async def _send_one(self, gateway: RabbitLedgerClient, number: int) -> None:
        credit = win(f"win-{number}", player_id=PLAYERS[number % len(PLAYERS)])
        answer = await gateway.call(credit, asyncio.get_running_loop().time() + ANSWER_SECONDS_MAX)
        assert isinstance(answer, Outcome)
        self.outcomes.append(answer)

    async def some_are_paid(self) -> None:
        """Return when wins that were sent from now on are paid, of all players."""
        enough = len(self.outcomes) + 2 * len(PLAYERS)
        await until(lambda: len(self.outcomes) >= enough)

    async def until_consumed(self, shards: int) -> None:
        """Return when the queue of each of so many shards has a consumer."""
        async with asyncio.timeout(SECONDS_MAX):
            for shard in range(shards):
                while not (await self.owner.queue_declare(shard_queue(shard), passive=True)).consumer_count:
                    await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def resized(servers: Servers, workers: int) -> AsyncIterator[Resized]:
    """Start workers and a gateway with BEFORE shards, and send wins: no provider may be told to ask again."""
    owner_url = await fresh_vhost(servers)
    gateway_url = await url_of(servers, owner_url, "gateway")
    async with (
        running_system(
            servers,
            {"CREDITS_BROKER__URL": gateway_url},
            workers=workers,
            CREDITS_BROKER__URL=await url_of(servers, owner_url, "worker"),
            CREDITS_BROKER__SHARDS=str(BEFORE),
        ) as system,
        await aio_pika.connect(owner_url) as owner,
        owner.channel() as channel,
        AsyncExitStack() as gateways,
    ):
        await system.add_players(PLAYERS)
        made = Resized(system, await raw_channel(channel), gateway_url, gateways)
        await made.switch_gateway(BEFORE, used=BEFORE)
        sending = asyncio.create_task(made.send())
        try:
            yield made
            await made.some_are_paid()
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        if not sending.cancelled():
            sending.result()  # a win that was told to be asked again
        assert {outcome.code for outcome in made.outcomes} <= {OutcomeCode.POSTED, OutcomeCode.REPLAYED}


async def test_gateways_grow_first_and_workers_shrink_first(servers: Servers) -> None:
    async with resized(servers, workers=1) as made:
        gateway = await made.switch_gateway(MORE, used=BEFORE)
        await made.some_are_paid()
        (worker,) = made.system.workers
        await made.restart(worker, MORE)
        await until(lambda: shards_in_use(gateway) == MORE)
        await made.some_are_paid()
        await made.restart(worker, FEWER)
        await made.until_consumed(MORE)
        await made.some_are_paid()
        assert shards_in_use(gateway) == MORE


async def test_workers_grow_first_and_gateways_shrink_first_and_queues_are_deleted(servers: Servers) -> None:
    async with resized(servers, workers=2) as made:
        with_more, worker = made.system.workers
        await made.restart(with_more, MORE)
        await until(lambda: '"more shards served"' in worker.log.read_text())
        await made.switch_gateway(MORE, used=MORE)
        await made.some_are_paid()
        with_more.send(signal.SIGKILL)  # the other, which is set to fewer, serves what it has made
        await made.some_are_paid()
        await made.until_consumed(MORE)
        await made.switch_gateway(FEWER, used=FEWER)
        await made.restart(worker, FEWER)
        await made.until_consumed(MORE)
        for shard in reversed(range(FEWER, MORE)):
            await made.owner.queue_delete(shard_queue(shard))
        await made.some_are_paid()
        await made.until_consumed(FEWER)
        assert worker.log.read_text().count('"worker serves"') == 2, "it has lost one consumer, no connection"
