"""A connection to the broker that is always being made again.

aio-pika's own robust connection restores channels and queues one by one, and can't restore an exclusive
queue that the broker still holds for a half-open connection. Here a lost connection is thrown away whole,
and `serve` begins anew on the next, which is to another node where the broker has several.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import cycle
from random import sample, uniform
from typing import Final, cast

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError
from aiormq import Channel
from aiormq.exceptions import InvalidFrameError
from pamqp.commands import Basic

from shared.broker.losses import LossLog, reason_of
from shared.broker.properties import read_any_properties
from shared.broker_url import node_of, vhost_of
from shared.errors import CreditsError
from shared.settings import BrokerSettings

CONNECT_SECONDS_MAX: Final = 5
CLOSE_SECONDS_MAX: Final = 0.5
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 1.0

DEFECT_PAUSES: Final = 10
"""A defect of ours pauses as if all nodes had been tried so often in vain: for PAUSE_SECONDS_MAX."""

BROKER_FAULTS: Final = (AMQPError, OSError, TimeoutError, RuntimeError, StopAsyncIteration)
"""What a lost broker looks like. aiormq says RuntimeError for a connection that is closing, and
StopAsyncIteration for one that a proxy accepts and drops because the broker behind it is not up."""

_VHOST_CHARACTERS_MAX: Final = 80
"""Of a virtual host's name in a message."""

_log = structlog.get_logger()


class VhostRefused(AMQPError):  # noqa: N818  (it says a state)
    """The account was let in, and then not to its virtual host."""


async def connect(settings: BrokerSettings, url: str) -> AbstractConnection:
    """Connect to one node within CONNECT_SECONDS_MAX. Raises one of BROKER_FAULTS."""
    read_any_properties()
    try:
        return await aio_pika.connect(url, heartbeat=settings.heartbeat_seconds, timeout=CONNECT_SECONDS_MAX)
    except InvalidFrameError as error:
        # aiormq expects the answer to Connection.Open and is told Connection.Close, whose reason it drops.
        if "Connection.OpenOk" not in str(error):
            raise
        name = repr(vhost_of(url)[:_VHOST_CHARACTERS_MAX])
        raise VhostRefused(
            f"the virtual host {name} is not found or not permitted, or takes no further connection"
        ) from None


async def connect_to_any(settings: BrokerSettings) -> AbstractConnection:
    """Connect to the first node that lets us. Raises one of BROKER_FAULTS, the last one's, when none does."""
    *others, last = _by_chance(settings.urls)
    for url in others:
        try:
            return await connect(settings, url)
        except BROKER_FAULTS as error:
            _log.warning("broker not reached", node=node_of(url), error=type(error).__name__, reason=reason_of(error))
    return await connect(settings, last)


async def keep_connected(
    settings: BrokerSettings, serve: Callable[[AbstractConnection], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Run `serve` on a connection, and again on one to the next node whenever it ends, until `stop` is set.

    `serve` returns, or raises one of BROKER_FAULTS, when the connection is of no more use. Pauses grow
    only when every node was tried in vain. Whatever else it raises is logged as a defect and survived: the
    broker delivers again what was not settled. Raises CreditsError as `serve` does.
    """
    losses = LossLog()
    try:
        await _keep_connected(settings, serve, stop, losses)
    finally:
        losses.flush()


async def _keep_connected(
    settings: BrokerSettings,
    serve: Callable[[AbstractConnection], Awaitable[None]],
    stop: asyncio.Event,
    losses: LossLog,
) -> None:
    nodes = _by_chance(settings.urls)
    refused = 0
    ends: set[asyncio.Future[None]] = set()
    for url in cycle(nodes):
        try:
            connection = await connect(settings, url)
            refused = 0
            try:
                await serve(connection)
            finally:
                await _close(connection, ends)
        except BROKER_FAULTS as error:
            refused += 1
            losses.record(node_of(url), error)
        except CreditsError:
            raise
        except Exception:  # noqa: BLE001  (a process that ends in a loop serves nobody)
            refused += DEFECT_PAUSES * len(nodes)
            _log.exception("serving failed", node=node_of(url))
        if not stop.is_set():
            await _pause(_pause_seconds(max(0, refused - 1) // len(nodes)), stop)
        if stop.is_set():
            break
    await asyncio.gather(*ends, return_exceptions=True)


async def _close(connection: AbstractConnection, ends: set[asyncio.Future[None]]) -> None:
    """Close a connection. A node that does not answer is not waited for: its end is left in `ends`."""

    def forget(end: asyncio.Future[None]) -> None:
        ends.discard(end)
        if not end.cancelled() and (error := end.exception()):
            _log.debug("connection not closed in good order", reason=str(error))

    end = asyncio.ensure_future(connection.close())
    ends.add(end)
    end.add_done_callback(forget)
    await asyncio.wait([end], timeout=CLOSE_SECONDS_MAX)


def _by_chance(urls: Sequence[str]) -> list[str]:
    """Return the URLs in any order: so processes spread over the nodes, and over those that are left."""
    return sample(urls, len(urls))


def _pause_seconds(rounds: int) -> float:
    """Return how long to wait when every node was tried so often in vain, with jitter."""
    seconds = min(PAUSE_SECONDS_MIN * 2 ** min(rounds, 10), PAUSE_SECONDS_MAX)
    return uniform(seconds / 2, seconds)  # noqa: S311  (jitter)


async def wait_closed(connection: AbstractConnection, *channels: AbstractChannel) -> None:
    """Return when the connection, or one of the channels, is of no more use."""
    ends = [asyncio.ensure_future(connection.closed())]
    ends += [asyncio.ensure_future(channel.closed()) for channel in channels]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


def _needs_every_consumer(_tag: str) -> bool:
    return False


async def raw_channel(
    channel: AbstractChannel, goes_on_without: Callable[[str], bool] = _needs_every_consumer
) -> Channel:
    """Return aiormq's channel under aio-pika's: its calls cost a fraction, and can leave out waiting.

    When the broker ends one of its consumers, because a queue was deleted or has lost its quorum, the channel
    is closed, and with it found to be `wait_closed`: nothing else would ever be delivered to that consumer. Not so
    where `goes_on_without`, which is called with the consumer's tag, says that it can be done without.
    """
    wire = cast("Channel", await channel.get_underlay_channel())
    ends: set[asyncio.Future[None]] = set()  # a task that nobody holds may be collected before it has run

    def on_cancel(frame: Basic.Cancel) -> None:
        _log.warning("consumer ended by the broker", consumer=frame.consumer_tag)
        if goes_on_without(frame.consumer_tag or ""):
            return
        ends.add(asyncio.ensure_future(_close_channel(channel)))

    wire.on_consumer_cancel_callbacks.add(on_cancel)
    return wire


async def _close_channel(channel: AbstractChannel) -> None:
    with suppress(*BROKER_FAULTS):
        await channel.close()


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
