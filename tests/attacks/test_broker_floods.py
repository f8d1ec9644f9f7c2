"""Floods by whoever may publish: they take neither a worker's memory nor the place of what is owed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.broker.topology import DEAD_QUEUE, LATE_QUEUE, UNSIGNED_BYTES_MAX, UNSIGNED_QUEUE, shard_queue
from shared.wire import MESSAGE_BYTES_MAX
from tests.support.attacked import counted, pay_with_retries, queued, until
from tests.support.stranger import Stranger, stranger_to
from tests.support.system import System
from worker.messaging.deliveries import LIVE_BYTES_MAX

pytestmark = pytest.mark.own_servers("rabbitmq")

MEBIBYTE = 1 << 20
HUGE = bytes(15 * MEBIBYTE)
HUGE_MESSAGES = 48
"""Gathered, they would be 720 MiB."""

LARGE = bytes(MESSAGE_BYTES_MAX)
LARGE_MESSAGES = 128
"""Gathered, they would be 256 MiB; each is as large as a message of ours may be."""

OVERHEAD_BYTES = 64 * MEBIBYTE
"""What the allocator may keep, and copies on their way to the broker."""


@pytest.fixture
async def stranger(system: System) -> AsyncIterator[Stranger]:
    async with stranger_to(system, overhears=False) as connected:
        yield connected
        await connected.channel.queue_purge(UNSIGNED_QUEUE)


def most_memory(system: System) -> int:
    """Return how much memory the worker has had at most, in bytes."""
    status = Path(f"/proc/{system.workers[0].pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1_024


async def flood(stranger: Stranger, body: bytes, messages: int, to: str | None = None) -> None:
    """Publish so many to one queue, or to all shards in turn; a few at once, for our own memory."""
    for number in range(0, messages, 4):
        for each in range(number, number + 4):
            await stranger.publish(body, to or shard_queue(each % 16))


@pytest.mark.parametrize("queue", [None, LATE_QUEUE])
async def test_huge_messages_take_no_memory_of_a_worker(system: System, stranger: Stranger, queue: str | None) -> None:
    before = most_memory(system)
    await flood(stranger, HUGE, HUGE_MESSAGES, queue)
    assert await pay_with_retries(system, 20) == 20

    async def are_aside() -> bool:
        return await queued(stranger, UNSIGNED_QUEUE) == HUGE_MESSAGES

    await until(are_aside)
    assert most_memory(system) - before < OVERHEAD_BYTES
    assert await queued(stranger, DEAD_QUEUE) == 0


async def test_many_large_messages_are_bounded_in_bytes_and_by_the_queue_for_what_nobody_signed(
    system: System, stranger: Stranger
) -> None:
    before = most_memory(system)
    kept, dropped = await queued(stranger, UNSIGNED_QUEUE), "credits_worker_dropped_messages_total"
    assert (kept, await counted(system, dropped)) == (0, 0)
    await stranger.publish(b"the first: as of an upgrade", LATE_QUEUE)
    await until(lambda: _has(stranger, 1))
    await flood(stranger, LARGE, LARGE_MESSAGES)
    assert await pay_with_retries(system, 20) == 20

    async def are_gone() -> bool:
        aside = await queued(stranger, UNSIGNED_QUEUE)
        return aside + await counted(system, dropped) == 1 + LARGE_MESSAGES

    await until(are_gone)
    aside = await queued(stranger, UNSIGNED_QUEUE)
    assert aside <= 1 + (UNSIGNED_BYTES_MAX + 8 * MEBIBYTE) // len(LARGE), "the bound is a soft one"
    assert most_memory(system) - before < LIVE_BYTES_MAX + OVERHEAD_BYTES
    first = await stranger.channel.basic_get(UNSIGNED_QUEUE, no_ack=True)
    assert first.body == b"the first: as of an upgrade", "what was kept stays"


async def _has(stranger: Stranger, messages: int) -> bool:
    return await queued(stranger, UNSIGNED_QUEUE) == messages
