"""Each process has its own user at the broker: a gateway that was broken into reaches the shards alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import uuid4

import aio_pika
import httpx
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from gateway.providers.base import Win
from shared.broker.topology import (
    DEAD_QUEUE,
    EXCHANGE,
    LATE_QUEUE,
    UNSIGNED_QUEUE,
    declare_topology,
    shard_queue,
)
from simulator.client import http_bytes, send_all
from simulator.dialects import read_reply
from simulator.history import ReplyMeaning
from tests.support.broker_users import url_of
from tests.support.servers import Servers, fresh_vhost
from tests.support.system import System, make_topology, running_system
from worker.cli.exit_codes import ExitCode

SHARDS = 2
SHARD = shard_queue(0)


class Urls(NamedTuple):
    """One virtual host, as each user reaches it."""

    owner: str
    gateway: str
    worker: str


@pytest.fixture(scope="module")
async def urls(servers: Servers) -> Urls:
    owner = await fresh_vhost(servers)
    return Urls(owner, *[await url_of(servers, owner, user) for user in ("gateway", "worker")])


@asynccontextmanager
async def system_of(servers: Servers, urls: Urls, workers: int) -> AsyncIterator[System]:
    async with running_system(
        servers,
        {"CREDITS_BROKER__URL": urls.gateway},
        workers=workers,
        CREDITS_BROKER__URL=urls.worker,
        CREDITS_BROKER__SHARDS=str(SHARDS),
    ) as system:
        await system.add_players(["anna"])
        yield system


async def pay(system: System) -> ReplyMeaning:
    provider = system.providers["klas"]
    request = http_bytes("klas", provider.sample_request(Win(str(uuid4()), "anna", "session")))
    (response,) = await send_all(system.url, [request], 1)
    return read_reply(provider, "EUR", response)[0]


async def test_gateway_waits_for_the_first_worker_and_both_need_no_more_than_their_permissions(
    servers: Servers, urls: Urls
) -> None:
    """Nothing was ever declared on this virtual host, and the gateway's user may not do it."""
    async with system_of(servers, urls, workers=0) as system:
        await system.until_ready(503)
        async with httpx.AsyncClient(base_url=system.operations_url) as client, asyncio.timeout(20):
            while "no exchange" not in (reason := (await client.get("/readyz")).json()["reason"]):
                assert reason == "no connection to the broker"
        assert await pay(system) is ReplyMeaning.ASK_AGAIN
        system.add_worker()
        await system.until_ready()
        assert await pay(system) is ReplyMeaning.PAID
        listed = await system.command("dead", "list")
        assert (listed.returncode, listed.stdout) == (ExitCode.OK, "nothing is put aside\n")


async def test_queues_of_an_older_installation_need_nothing_but_the_bindings(servers: Servers) -> None:
    """Their arguments are the same: a worker that comes binds them to the exchange."""
    owner = await fresh_vhost(servers)
    async with await aio_pika.connect(owner) as connection, connection.channel() as channel:
        await declare_topology(channel, SHARDS)
        await channel.exchange_delete(EXCHANGE)
    older = Urls(owner, *[await url_of(servers, owner, user) for user in ("gateway", "worker")])
    async with system_of(servers, older, workers=1) as system:
        assert await pay(system) is ReplyMeaning.PAID


async def publish(channel: AbstractChannel, exchange: str, queue: str) -> None:
    target = await channel.get_exchange(exchange, ensure=False)
    await target.publish(aio_pika.Message(b"not for you"), queue)


async def consume(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).get(no_ack=True, fail=False)


async def overhear(channel: AbstractChannel, exchange: str) -> None:
    own = await channel.declare_queue(exclusive=True)
    await own.bind(exchange, routing_key=SHARD)


async def bind(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).bind(EXCHANGE, routing_key=queue)


async def declare(channel: AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, durable=True)


async def purge(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).purge()


async def delete(channel: AbstractChannel, queue: str) -> None:
    await channel.queue_delete(queue)


async def delete_exchange(channel: AbstractChannel, exchange: str) -> None:
    await channel.exchange_delete(exchange)


Misdeed = Callable[..., Awaitable[None]]
BY_GATEWAY: Sequence[tuple[Misdeed, tuple[str, ...]]] = (
    *((publish, ("", queue)) for queue in (SHARD, LATE_QUEUE, DEAD_QUEUE, UNSIGNED_QUEUE)),
    (publish, ("amq.direct", SHARD)),
    *((consume, (queue,)) for queue in (SHARD, LATE_QUEUE, DEAD_QUEUE, UNSIGNED_QUEUE)),
    *((bind, (queue,)) for queue in (LATE_QUEUE, DEAD_QUEUE, UNSIGNED_QUEUE)),
    *((purge, (queue,)) for queue in (SHARD, LATE_QUEUE, DEAD_QUEUE, UNSIGNED_QUEUE)),
    *((delete, (queue,)) for queue in (SHARD, LATE_QUEUE, DEAD_QUEUE, UNSIGNED_QUEUE)),
    (delete_exchange, (EXCHANGE,)),
    (overhear, (EXCHANGE,)),
    (declare, ("credits.shard.99",)),
    (declare, ("anything",)),
)
BY_WORKER: Sequence[tuple[Misdeed, tuple[str, ...]]] = (
    (publish, (EXCHANGE, SHARD)),
    (declare, ("anything",)),
    (overhear, (EXCHANGE,)),
)


async def refused(url: str, misdeed: Misdeed, names: tuple[str, ...]) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        with pytest.raises(ChannelAccessRefused):
            await misdeed(channel, *names)


async def test_gateway_reaches_the_shards_through_its_exchange_and_nothing_else(urls: Urls) -> None:
    await make_topology(urls.owner, SHARDS)
    for misdeed, names in BY_GATEWAY:
        await refused(urls.gateway, misdeed, names)


async def test_worker_sends_nothing_in_a_gateways_place_and_makes_no_queues_but_its_own(urls: Urls) -> None:
    await make_topology(urls.owner, SHARDS)
    for misdeed, names in BY_WORKER:
        await refused(urls.worker, misdeed, names)
