"""Whoever has got hold of the broker's password: reads what passes, and publishes anything anywhere."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aio_pika
from aiormq import AMQPError, Channel
from pamqp.commands import Basic

from shared.broker.connection import raw_channel
from shared.broker.topology import EXCHANGE, shard_queue
from shared.message_keys import Purpose
from shared.settings import BrokerSettings
from shared.wire import V2, Batch, read_batch
from tests.support.system import BROKER_KEY, KEYS, System
from worker.messaging.dead_letters import DeadLetter, discard, list_all

WAIT_SECONDS: Final = 20.0


class RawProperties(Basic.Properties):
    """Properties that no honest client can write."""

    def __init__(self, raw: bytes) -> None:
        """Take the bytes after the header's sizes: flags, then the values that they name."""
        super().__init__()
        self._raw = raw
        self.message_id = "kept from being written"

    def marshal(self) -> bytes:
        """Return the bytes."""
        return self._raw


def _short(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


def _table(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _nested(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = b"\x01kF" + _table(inner)
    return _table(inner)


_HEADERS, _PRIORITY, _REPLY_TO = 1 << 13, 1 << 11, 1 << 9
_MESSAGE_ID, _TIMESTAMP, _TYPE, _APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 3

GARBAGE: Final[Mapping[str, bytes]] = {
    name: struct.pack(">H", flags) + values
    for name, (flags, values) in {
        "none at all": (0, b""),
        "a type that is no UTF-8": (_TYPE, _short(b"\xff" * 255)),
        "an app id that is no UTF-8": (_APP_ID, _short(b"\xc3(" * 100)),
        "a message id that is no UTF-8": (_MESSAGE_ID, _short(b"\xff")),
        "a reply queue that is no UTF-8": (_REPLY_TO, _short(b"\x80" * 255)),
        "tables in tables": (_HEADERS, _nested(3_000)),
        "a header's name that is no UTF-8": (_HEADERS, _table(b"\x02\xff\xfeS" + _table(b"x"))),
        "a time at the end of all times": (_TIMESTAMP, b"\xff" * 8),
        "a time after all years": (_TIMESTAMP, struct.pack(">Q", 10**15)),
        "a priority that is none": (_PRIORITY, b"\xff"),
    }.items()
}
"""Message properties as they travel, each of which some client chokes on."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A connection with the broker's password and without the messages' key."""

    system: System
    channel: Channel
    own_queue: str

    async def publish(
        self, body: bytes, to: str, *, exchange: str = "", raw: bytes | None = None, **properties: Any
    ) -> None:
        """Publish anything anywhere; the broker has it when this returns."""
        honest = {"message_type": V2, "delivery_mode": 2, **properties}
        made = Basic.Properties(**honest) if raw is None else RawProperties(raw)
        await self.channel.basic_publish(body, exchange=exchange, routing_key=to, properties=made)

    async def try_to_publish(self, body: bytes, to: str, raw: bytes) -> bool:
        """Publish with such properties over a connection of its own; return whether the broker has it."""
        async with stranger_to(self.system, overhears=False) as other:
            try:
                await other.publish(body, to, raw=raw)
            except AMQPError:
                return False
        return True

    async def publish_all(self, bodies: list[bytes], to: str) -> None:
        """Publish many at once."""
        await asyncio.gather(*(self.publish(body, to) for body in bodies))

    async def overheard(self) -> bytes | None:
        """Return the next message that came to the own queue, if one did."""
        message = await self.channel.basic_get(self.own_queue, no_ack=True)
        return None if isinstance(message.delivery, Basic.GetEmpty) else message.body

    async def overheard_batch(self) -> tuple[bytes, Batch]:
        """Return the next batch that a gateway sends, as it came and as it reads."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (body := await self.overheard()) is None:
                await asyncio.sleep(0.02)
        return body, read_batch(KEYS, body, V2, Purpose.BATCH)

    async def forget(self) -> None:
        """Forget what was overheard."""
        await self.channel.queue_purge(self.own_queue)


@asynccontextmanager
async def stranger_to(system: System, *, overhears: bool = True) -> AsyncIterator[Stranger]:
    """Connect a stranger who overhears every batch, or one who only does harm."""
    async with (
        await aio_pika.connect(system.environment["CREDITS_BROKER__URL"]) as connection,
        connection.channel() as channel,
    ):
        own = await channel.declare_queue(exclusive=True)
        for shard in range(BrokerSettings().shards if overhears else 0):
            await own.bind(EXCHANGE, routing_key=shard_queue(shard))
        yield Stranger(system, await raw_channel(channel), own.name)


def broker_settings(system: System) -> BrokerSettings:
    """Return `[broker]` of a system, its key included."""
    return BrokerSettings(url=system.environment["CREDITS_BROKER__URL"], keys=(BROKER_KEY,))


async def put_aside(system: System, number: int) -> list[DeadLetter]:
    """Return what is put aside when it is so much, and remove it."""
    settings = broker_settings(system)
    found: list[DeadLetter] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(found) < number:
            found = await list_all(settings)
            await asyncio.sleep(0.05)
    assert len(found) == number, {message.reason for message in found}
    await discard(settings, lambda _: True)
    return found
