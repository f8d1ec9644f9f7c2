"""A system under attack, and the honest wins that it has to pay all the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.providers.base import Win
from shared.broker.topology import shard_of, shard_queue
from shared.operations import Credit
from shared.settings import BrokerSettings
from shared.wire import Batch, encode_batch, unix_ms
from simulator.client import http_bytes, send_all
from simulator.dialects import read_reply
from simulator.history import ReplyMeaning
from tests.support.credits import win
from tests.support.servers import Servers
from tests.support.servers.server import free_ports
from tests.support.stranger import WAIT_SECONDS, Stranger
from tests.support.system import SESSION, System, running_system

PLAYERS: Final = ("anna", "ben", "mallory")
ATTEMPTS: Final = 3
"""At four seconds each, a win that a flood delays is sent so often."""

SHARD: Final = shard_queue(shard_of("anna", BrokerSettings().shards))


@asynccontextmanager
async def attacked_system(servers: Servers) -> AsyncIterator[System]:
    """Run one system for all attacks of a file: what one of them left broken, the next would find."""
    (port,) = free_ports(1)
    patient = {f"CREDITS_INTEGRATIONS__{name}__REPLY_WITHIN_SECONDS": "4" for name in ("KLAS", "GPAS")}
    patient["CREDITS_WORKER__METRICS_PORT"] = str(port)
    async with running_system(servers, workers=1, **patient) as started:
        await started.add_players(PLAYERS)
        yield started
        assert all(process.is_running for process in started.processes)
        assert (await started.command("verify", "--full")).returncode == 0


def credit(player_id: str = "mallory") -> Credit:
    """Return a new win."""
    return win(str(uuid4()), player_id=player_id, round_id=None)


def batch(*credits_: Credit, reply_to: str = "", number: int = 1) -> bytes:
    """Return an unsigned batch."""
    return encode_batch(Batch(number, unix_ms() + 60_000, credits_, reply_to=reply_to))


async def pay(system: System, count: int = 1, player_id: str = "anna", integration: str = "klas") -> int:
    """Send so many honest wins at once; return how many were told as paid."""
    wins = [Win(str(uuid4()), player_id, SESSION + player_id) for _ in range(count)]
    return count - len(await _unpaid(system, integration, wins))


async def pay_with_retries(system: System, count: int) -> int:
    """Send so many honest wins at once, and repeat those to be asked again; return how many are paid.

    As providers do: under a flood on a busy machine a win may miss its window, and may lose nothing else.
    """
    unpaid = [Win(str(uuid4()), "anna", SESSION + "anna") for _ in range(count)]
    for _ in range(ATTEMPTS):
        unpaid = await _unpaid(system, "klas", unpaid)
    return count - len(unpaid)


async def _unpaid(system: System, integration: str, wins: Sequence[Win]) -> list[Win]:
    """Send wins; return those that are to be asked again, as is the only reply beside 'paid'."""
    if not wins:
        return []
    provider = system.providers[integration]
    requests = [http_bytes(integration, provider.sample_request(one)) for one in wins]
    responses = await send_all(system.url, requests, min(len(wins), 20))
    replies = [read_reply(provider, "EUR", response)[0] for response in responses]
    assert set(replies) <= {ReplyMeaning.PAID, ReplyMeaning.ASK_AGAIN}
    return [one for one, reply in zip(wins, replies, strict=True) if reply is not ReplyMeaning.PAID]


async def dropped(system: System) -> dict[str, float]:
    """Return how many replies the gateway has dropped, by reason."""
    async with httpx.AsyncClient(base_url=system.operations_url) as client:
        exposition = (await client.get("/metrics")).text
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == "credits_gateway_dropped_replies_total"
    }


async def counted(system: System, name: str) -> float:
    """Return what the worker has counted under a name, all labels together."""
    async with httpx.AsyncClient() as client:
        port = system.environment["CREDITS_WORKER__METRICS_PORT"]
        exposition = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    families = text_string_to_metric_families(exposition)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when it holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():
            await asyncio.sleep(0.05)


async def transfers(system: System) -> int:
    """Return how many transfers the books hold."""
    ((number,),) = await system.query("SELECT count(*) FROM transfers")
    return int(number)


async def queued(stranger: Stranger, queue: str) -> int:
    """Return how many messages wait in a queue."""
    declared = await stranger.channel.queue_declare(queue, passive=True)
    return declared.message_count or 0
