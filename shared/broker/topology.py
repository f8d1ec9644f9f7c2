"""The queues: their names, their arguments, and the shard of a player.

| queue | published by | contents |
|---|---|---|
| `credits.shard.N` | gateways | operations and queries of the players of shard N |
| `credits.late` | the broker | credits that expired before a worker took them; posted without a reply |
| `credits.dead` | workers | authentic messages that can't be decoded or posted, with the reason, for a person |
| `credits.dead.unsigned` | workers | messages that nobody signed, for a person; bounded |
| `amq.gen-...` | workers | replies to one gateway connection |

Gateways publish to an exchange that is bound to the shards only, since permission to publish to the default
exchange would be permission for every queue. Workers declare the exchange, the queues and the bindings.
"""

from typing import Final
from zlib import crc32

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

EXCHANGE: Final = "credits"
"""Routes a gateway's batch to the queue of its shard."""

LATE_QUEUE: Final = "credits.late"
DEAD_QUEUE: Final = "credits.dead"
UNSIGNED_QUEUE: Final = "credits.dead.unsigned"

UNSIGNED_BYTES_MAX: Final = 64 << 20
UNSIGNED_MESSAGES_MAX: Final = 5_000
"""Beyond either bound, further unsigned messages are dropped. Older ones stay: they may come from an upgrade or
from a process with other keys, and a flood of forgeries must not displace them.
"""

SHARDS_MAX: Final = 256
"""The upper bound of `[broker] shards`."""

SHARD_MESSAGES_MAX: Final = 20_000
"""Beyond this a shard's queue rejects messages, and the gateway learns it at once. A policy may lower it."""

# These are queue arguments rather than a policy, because without them credits are lost: a forgotten policy must
# not drop expired credits. Everything else is left to policies. At-least-once dead-lettering needs
# reject-publish; with the default strategy an expired credit could vanish.
_SHARD_ARGUMENTS: Final[FieldTable] = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    "x-max-length": SHARD_MESSAGES_MAX,
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": LATE_QUEUE,
    "x-dead-letter-strategy": "at-least-once",
}
_LATE_ARGUMENTS: Final[FieldTable] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD_QUEUE,
    "x-dead-letter-strategy": "at-least-once",
}
_DEAD_ARGUMENTS: Final[FieldTable] = {"x-queue-type": "quorum"}
_UNSIGNED_ARGUMENTS: Final[FieldTable] = {
    "x-queue-type": "quorum",
    "x-max-length": UNSIGNED_MESSAGES_MAX,
    "x-max-length-bytes": UNSIGNED_BYTES_MAX,
    "x-overflow": "reject-publish",
    # RabbitMQ 4 dead-letters a message that was returned too often, as by interrupted listings.
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD_QUEUE,
}


def shard_queue(shard: int) -> str:
    """Return the name of the queue of a shard."""
    return f"credits.shard.{shard}"


def shard_of(key: str, shards: int) -> int:
    """Return the shard of a player (or of another key); it is the same in every process and release."""
    return crc32(key.encode()) % shards


def consumer_priority(worker_id: str, shard: int) -> int:
    """Return a worker's priority on a shard: pseudo-random, so that the shards spread over the workers."""
    return crc32(f"{worker_id}/{shard}".encode()) % 1_000


async def declare_topology(channel: AbstractChannel, shards: int) -> None:
    """Declare the exchange, every durable queue and the bindings. Each worker calls this on each connection."""
    await channel.declare_queue(DEAD_QUEUE, durable=True, arguments=_DEAD_ARGUMENTS)
    await channel.declare_queue(UNSIGNED_QUEUE, durable=True, arguments=_UNSIGNED_ARGUMENTS)
    await channel.declare_queue(LATE_QUEUE, durable=True, arguments=_LATE_ARGUMENTS)
    for shard in range(shards):
        await channel.declare_queue(shard_queue(shard), durable=True, arguments=_SHARD_ARGUMENTS)
    await bind_shards(channel, shards)


async def bind_shards(channel: AbstractChannel, shards: int) -> None:
    """Declare the exchange and bind the shards' queues to it. Fails if one of the queues is missing."""
    exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.DIRECT, durable=True)
    for shard in range(shards):
        name = shard_queue(shard)
        queue = await channel.get_queue(name, ensure=False)
        await queue.bind(exchange, routing_key=name)
