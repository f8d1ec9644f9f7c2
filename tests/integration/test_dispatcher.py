"""Over a real broker: replies tell the gateway who serves its shards, and each worker is sent one message."""

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest

from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.dispatcher import BatchAnswer
from gateway.ledger_client.rabbit import RabbitLedgerClient
from shared.broker.topology import shard_of
from shared.errors import LedgerUnavailable
from shared.queries import FindPlayer
from shared.settings import BrokerSettings
from shared.wire import Question
from tests.support.metrics import shards_in_use
from tests.support.servers import Servers
from tests.support.system import KEYS, Process, System, running_system

SHARDS: Final = BrokerSettings().shards
ANSWER_SECONDS_MAX: Final = 10.0
SETTLED_SECONDS_MAX: Final = 60.0


class WatchedClient(RabbitLedgerClient):
    """The gateway's client, which notes what it sends to which shard, and who answers."""

    def __init__(self, url: str) -> None:
        super().__init__(BrokerSettings(url=url), KEYS, ConcurrencyLimit(1_000))
        self.sent: list[tuple[str, int]] = []
        """Of each batch, in the order of the answers: who answered, and how many questions it held."""

    async def _send(self, shard: int, questions: Sequence[Question], deadline: float) -> BatchAnswer:
        answered = await super()._send(shard, questions, deadline)
        if questions:  # not one that only looks whether a shard is served
            self.sent.append((answered.worker_id.rpartition("/")[2], len(questions)))
        return answered

    async def ask_of_each_shard(self, player_ids: Sequence[str]) -> None:
        """Ask at once for players who are on different shards."""
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS_MAX
        await asyncio.gather(*(self.call(FindPlayer(player_id), deadline) for player_id in player_ids))


async def until_connected(client: WatchedClient) -> None:
    while True:
        try:
            return await client.ask_of_each_shard(["anyone"])
        except LedgerUnavailable:
            await asyncio.sleep(0.05)


def one_player_of_each_shard() -> list[str]:
    by_shard = {shard_of(f"player-{n}", SHARDS): f"player-{n}" for n in range(20 * SHARDS)}
    assert len(by_shard) == SHARDS
    return list(by_shard.values())


async def until_all_serve(workers: Sequence[Process]) -> None:
    """Return when every worker has come to the broker: each that comes may take over some shards."""
    while not all('"worker serves"' in worker.log.read_text() for worker in workers):
        await asyncio.sleep(0.05)


async def learned(client: WatchedClient, player_ids: Sequence[str]) -> None:
    """Ask for one player after the other until two rounds have the same answerers; forget what was sent."""
    before: list[tuple[str, int]] | None = None
    while client.sent != before:
        before = client.sent.copy()
        client.sent.clear()
        for player_id in player_ids:
            await client.ask_of_each_shard([player_id])
    client.sent.clear()


def process_ids(system: System) -> set[str]:
    return {str(worker.popen.pid) for worker in system.workers if worker.popen is not None}


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_worker_is_sent_one_message_however_many_shards_it_serves(servers: Servers, workers: int) -> None:
    player_ids = one_player_of_each_shard()
    async with (
        running_system(servers, workers=workers) as system,
        WatchedClient(system.environment["CREDITS_BROKER__URL"]) as client,
    ):
        async with asyncio.timeout(SETTLED_SECONDS_MAX):
            await until_connected(client)
            while shards_in_use(client) < SHARDS:
                await asyncio.sleep(0.05)
            await until_all_serve(system.workers)
            await learned(client, player_ids)
        await client.ask_of_each_shard(player_ids)
        answered_by = [worker for worker, _ in client.sent]
        assert set(answered_by) <= process_ids(system)
        assert len(answered_by) == len(set(answered_by)), client.sent
        assert sum(questions for _, questions in client.sent) == SHARDS
