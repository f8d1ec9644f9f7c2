"""A stranger with the broker's password deletes what is there: it is made again, and wins are paid again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import pytest
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError
from pamqp.commands import Basic

from shared.broker.topology import DEAD_QUEUE, EXCHANGE, LATE_QUEUE, UNSIGNED_QUEUE
from shared.message_keys import Purpose
from shared.wire import V2, Batch, encode_batch
from tests.support.attacked import SHARD, batch, credit, pay, queued, transfers, until
from tests.support.servers import Servers
from tests.support.stranger import Stranger, put_aside, stranger_to
from tests.support.system import KEYS, System

SIGNED = Basic.Properties(message_type=V2, delivery_mode=2)


@pytest.fixture
async def vandal(system: System) -> AsyncIterator[Stranger]:
    """One whose own queue takes nothing: what can't be routed comes back to the gateway."""
    async with stranger_to(system, overhears=False) as connected:
        yield connected


async def is_gone(system: System, queue: str) -> bool:
    async with stranger_to(system, overhears=False) as other:
        try:
            await queued(other, queue)
        except ChannelNotFoundEntity:
            return True
    return False


async def delete_queue(stranger: Stranger, queue: str) -> None:
    await stranger.channel.queue_delete(queue)


async def delete_exchange(stranger: Stranger, exchange: str) -> None:
    await stranger.channel.exchange_delete(exchange)


async def unbind(stranger: Stranger, queue: str) -> None:
    await stranger.channel.queue_unbind(queue, EXCHANGE, routing_key=queue)


POISON: Mapping[str, bytes] = {
    DEAD_QUEUE: KEYS.sign(Purpose.BATCH, encode_batch(Batch(1, 0, [credit()]))),
    UNSIGNED_QUEUE: b"poison",
}
"""By the queue in which it is kept."""

Deletion = Callable[[Stranger, str], Awaitable[None]]
DELETED: Sequence[tuple[Deletion, str]] = (
    (delete_queue, SHARD),
    (delete_queue, LATE_QUEUE),
    (delete_queue, DEAD_QUEUE),
    (delete_queue, UNSIGNED_QUEUE),
    (delete_exchange, EXCHANGE),
    (unbind, SHARD),
)


@pytest.mark.parametrize(("delete", "name"), DELETED)
async def test_what_was_deleted_is_made_again_without_a_restart(
    system: System, vandal: Stranger, delete: Deletion, name: str
) -> None:
    await delete(vandal, name)
    if name in POISON:
        await until(partial(is_gone, system, name))  # what comes to a queue while it goes, goes with it
        await vandal.publish(POISON[name], SHARD)
        (aside,) = await put_aside(system, 1)
        assert aside.queue == name

    async def is_served() -> bool:
        return await pay(system) == 1

    await until(is_served)
    before = await transfers(system)
    body = KEYS.sign(Purpose.BATCH, batch(credit("anna")))

    async def is_posted() -> bool:
        with suppress(DeliveryError):  # as long as there is no such queue
            await vandal.channel.basic_publish(body, routing_key=LATE_QUEUE, properties=SIGNED, mandatory=True)
        return await transfers(system) == before + 1

    await until(is_posted)


async def test_win_whose_shard_has_no_queue_is_paid_over_another_at_once(system: System, vandal: Stranger) -> None:
    await unbind(vandal, SHARD)
    assert await pay(system) == 1


async def test_gateway_whose_reply_queue_is_deleted_makes_another(
    servers: Servers, system: System, stranger: Stranger
) -> None:
    assert await pay(system) == 1
    _, answered = await stranger.overheard_batch()
    vhost = system.environment["CREDITS_BROKER__URL"].rpartition("/")[2]
    command = ("rabbitmqctl", "--quiet", "delete_queue", "-p", vhost, answered.reply_to)
    await asyncio.to_thread(servers.rabbitmq.run, *command)
    await stranger.forget()

    async def is_served() -> bool:
        return await pay(system) == 1

    await until(is_served)
    _, later = await stranger.overheard_batch()
    assert later.reply_to != answered.reply_to
