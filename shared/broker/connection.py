"""Keeps a process connected to the broker: a lost connection is replaced by a new one.

aio-pika's own robust connection restores channels and queues one by one, and can't restore an exclusive
queue that the broker still holds for a half-open connection. Here a lost connection is discarded as a whole,
and `serve` starts afresh on the next one, which goes to another node if the broker has several.
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
"""The pause after a defect of ours is that of this many failed rounds over all nodes: PAUSE_SECONDS_MAX."""

BROKER_FAULTS: Final = (AMQPError, OSError, TimeoutError, RuntimeError, StopAsyncIteration)
"""The exceptions that a lost broker causes. aiormq raises RuntimeError for a connection that is closing, and
StopAsyncIteration for one that a proxy accepts and drops because the broker behind it is not up.
"""

_VHOST_CHARACTERS_MAX: Final = 80
"""How much of a virtual host's name a message repeats."""

_log = structlog.get_logger()


class VhostRefused(AMQPError):  # noqa: N818  (named after the state)
    """The broker accepted the account, but refused it access to the virtual host."""


async def connect(settings: BrokerSettings, url: str) -> AbstractConnection:
    """Connect to one node within CONNECT_SECONDS_MAX. Raises one of BROKER_FAULTS."""
    read_any_properties()
    try:
        return await aio_pika.connect(url, heartbeat=settings.heartbeat_seconds, timeout=CONNECT_SECONDS_MAX)
    except InvalidFrameError as error:
        # aiormq expects Connection.OpenOk and receives Connection.Close, whose reason it drops.
        if "Connection.OpenOk" not in str(error):
            raise
        name = repr(vhost_of(url)[:_VHOST_CHARACTERS_MAX])
        raise VhostRefused(
            f"the virtual host {name} is not found or not permitted, or takes no further connection"
        ) from None


async def connect_to_any(settings: BrokerSettings) -> AbstractConnection:
    """Connect to the first node that accepts us. If none does, raises the last one's error, one of BROKER_FAULTS."""
    *others, last = _shuffled(settings.urls)
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

    `serve` returns, or raises one of BROKER_FAULTS, when the connection can't be used any longer. Pauses grow only
    after all nodes have failed. Any other exception is logged as a defect, and the next connection is made: the
    broker redelivers messages that were not acknowledged. Raises CreditsError if `serve` does.
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
    nodes = _shuffled(settings.urls)
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
        except Exception:  # noqa: BLE001  (a process that restarts in a loop serves nobody)
            refused += DEFECT_PAUSES * len(nodes)
            _log.exception("serving failed", node=node_of(url))
        if not stop.is_set():
            await _pause(_pause_seconds(max(0, refused - 1) // len(nodes)), stop)
        if stop.is_set():
            break
    await asyncio.gather(*ends, return_exceptions=True)


async def _close(connection: AbstractConnection, ends: set[asyncio.Future[None]]) -> None:
    """Close a connection. If the node does not answer in time, the closing task is left in `ends`."""

    def forget(end: asyncio.Future[None]) -> None:
        ends.discard(end)
        if not end.cancelled() and (error := end.exception()):
            _log.debug("connection not closed in good order", reason=str(error))

    end = asyncio.ensure_future(connection.close())
    ends.add(end)
    end.add_done_callback(forget)
    await asyncio.wait([end], timeout=CLOSE_SECONDS_MAX)


def _shuffled(urls: Sequence[str]) -> list[str]:
    """Return the URLs in random order, so that processes spread over the nodes, also over those left in an outage."""
    return sample(urls, len(urls))


def _pause_seconds(rounds: int) -> float:
    """Return the pause after `rounds` failed rounds over all nodes, with jitter."""
    seconds = min(PAUSE_SECONDS_MIN * 2 ** min(rounds, 10), PAUSE_SECONDS_MAX)
    return uniform(seconds / 2, seconds)  # noqa: S311  (jitter)


async def wait_closed(connection: AbstractConnection, *channels: AbstractChannel) -> None:
    """Wait until the connection or one of the channels is closed."""
    ends = [asyncio.ensure_future(connection.closed())]
    ends += [asyncio.ensure_future(channel.closed()) for channel in channels]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


def _needs_all_consumers(_tag: str) -> bool:
    return False


async def raw_channel(
    channel: AbstractChannel, is_dispensable: Callable[[str], bool] = _needs_all_consumers
) -> Channel:
    """Return aiormq's channel under aio-pika's: its calls cost a fraction, and need not wait for the broker.

    If the broker ends one of its consumers, because a queue was deleted or has lost its quorum, nothing more would
    be delivered to that consumer. So the channel is closed, which ends `wait_closed`, unless `is_dispensable`
    returns True for the consumer's tag.
    """
    raw = cast("Channel", await channel.get_underlay_channel())
    ends: set[asyncio.Future[None]] = set()  # a task without a reference may be collected before it has run

    def on_cancel(frame: Basic.Cancel) -> None:
        _log.warning("consumer ended by the broker", consumer=frame.consumer_tag)
        if is_dispensable(frame.consumer_tag or ""):
            return
        ends.add(asyncio.ensure_future(_close_channel(channel)))

    raw.on_consumer_cancel_callbacks.add(on_cancel)
    return raw


async def _close_channel(channel: AbstractChannel) -> None:
    with suppress(*BROKER_FAULTS):
        await channel.close()


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
