"""A connection to the broker that is always being made again.

aio-pika's own robust connection restores channels and queues one by one, and can't restore an exclusive
queue that the broker still holds for a half-open connection. Here a lost connection is thrown away whole,
and `serve` begins anew on the next.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import uniform
from typing import Final, cast

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError
from aiormq import Channel

from shared.settings import BrokerSettings

CONNECT_SECONDS_MAX: Final = 5
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 1.0

BROKER_FAULTS: Final = (AMQPError, OSError, TimeoutError, RuntimeError, StopAsyncIteration)
"""What a lost broker looks like. aiormq says RuntimeError for a connection that is closing, and
StopAsyncIteration for one that a proxy accepts and drops because the broker behind it is not up."""

_log = structlog.get_logger()


async def keep_connected(
    settings: BrokerSettings, serve: Callable[[AbstractConnection], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Run `serve` on a connection, and again on a new one whenever it ends, until `stop` is set.

    `serve` returns, or raises one of BROKER_FAULTS, when the connection is of no more use.
    """
    pause_seconds = PAUSE_SECONDS_MIN
    while not stop.is_set():
        try:
            connection = await aio_pika.connect(
                settings.url, heartbeat=settings.heartbeat_seconds, timeout=CONNECT_SECONDS_MAX
            )
            async with connection:
                pause_seconds = PAUSE_SECONDS_MIN
                await serve(connection)
        except BROKER_FAULTS as error:
            _log.warning("broker lost", error=type(error).__name__, reason=str(error))
        if not stop.is_set():
            await _pause(uniform(pause_seconds / 2, pause_seconds), stop)  # noqa: S311  (jitter)
            pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)


async def lost(connection: AbstractConnection, *channels: AbstractChannel) -> None:
    """Return when the connection, or one of the channels, is of no more use."""
    ends = [asyncio.ensure_future(connection.closed())]
    ends += [asyncio.ensure_future(channel.closed()) for channel in channels]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


async def wire_channel(channel: AbstractChannel) -> Channel:
    """Return aiormq's channel under aio-pika's: its calls cost a fraction, and can leave out waiting."""
    return cast("Channel", await channel.get_underlay_channel())


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
