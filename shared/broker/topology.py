"""The queues: their names, their arguments, and which shard a player is on.

| queue | who publishes | what it is for |
|---|---|---|
| `credits.shard.N` | gateways | a player's credits and questions, always on the same N |
| `credits.late` | the broker | credits that nobody could serve in time: posted with nobody waiting |
| `credits.dead` | workers | what is authentic and can't be decoded or posted, with the reason, for a person |
| `credits.dead.unsigned` | workers | what nobody has signed, for a person; bounded |
| `amq.gen-...` | workers | each gateway connection's own replies |

Gateways publish to an exchange that reaches the shards alone: over the default exchange, permission to
publish is permission to publish to every queue. Workers make the exchange, the queues and the bindings.
"""

from typing import Final
from zlib import crc32

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

EXCHANGE: Final = "credits"
"""Routes a gateway's batch to the shard's queue of that name."""

LATE_QUEUE: Final = "credits.late"
DEAD_QUEUE: Final = "credits.dead"
UNSIGNED_QUEUE: Final = "credits.dead.unsigned"

UNSIGNED_BYTES_MAX: Final = 64 << 20
UNSIGNED_MESSAGES_MAX: Final = 5_000
"""Beyond either, what nobody has signed is dropped. What is there already stays: it may be of an upgrade, or
of a process with other keys, and a flood of forgeries must not push it out."""

SHARDS_MAX: Final = 256
"""As many as `[broker] shards` may be."""

SHARD_MESSAGES_MAX: Final = 20_000
"""Beyond this a shard refuses to be published to: the gateway is told at once. A policy may lower it."""

# These stand in the arguments and not in a policy because without them credits are lost: an installation
# where a policy was forgotten must not be one that drops expired credits. All else is left to policies.
# At-least-once dead-lettering needs reject-publish; with the default strategy an expired credit could vanish.
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
    # Where RabbitMQ 4 leaves what was returned to it too often, as by looks that were broken off.
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD_QUEUE,
}


def shard_queue(shard: int) -> str:
    """Return the name of the queue that carries the credits of `shard`."""
    return f"credits.shard.{shard}"


def shard_of(key: str, shards: int) -> int:
    """Return the shard of a player (or of another key), the same in every process and release."""
    return crc32(key.encode()) % shards


def consumer_priority(worker_id: str, shard: int) -> int:
    """Return a worker's priority for a shard: random over workers, so that shards spread over them."""
    return crc32(f"{worker_id}/{shard}".encode()) % 1_000


async def declare_topology(channel: AbstractChannel, shards: int) -> None:
    """Declare the exchange, every durable queue and the bindings; each worker does so at each connection."""
    await channel.declare_queue(DEAD_QUEUE, durable=True, arguments=_DEAD_ARGUMENTS)
    await channel.declare_queue(UNSIGNED_QUEUE, durable=True, arguments=_UNSIGNED_ARGUMENTS)
    await channel.declare_queue(LATE_QUEUE, durable=True, arguments=_LATE_ARGUMENTS)
    for shard in range(shards):
        await channel.declare_queue(shard_queue(shard), durable=True, arguments=_SHARD_ARGUMENTS)
    await bind_shards(channel, shards)


async def bind_shards(channel: AbstractChannel, shards: int) -> None:
    """Declare the exchange and bind the shards to it. Fails if a shard's queue is gone."""
    exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.DIRECT, durable=True)
    for shard in range(shards):
        name = shard_queue(shard)
        queue = await channel.get_queue(name, ensure=False)
        await queue.bind(exchange, routing_key=name)
