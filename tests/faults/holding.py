"""A worker that holds messages for longer than the broker lets it."""

import asyncio
from typing import Final

from tests.faults.rig import Rig

HELD_MILLISECONDS_MAX: Final = 1_500
LOOKED_AT_EVERY_MILLISECONDS: Final = 500
"""How often RabbitMQ before 4.3, where each channel sees to it, compares."""

TAKEN_BACK_WITHIN_SECONDS: Final = 30.0


async def beyond_what_the_broker_allows(rig: Rig) -> None:
    """Take the database away until the broker has taken back the late credits that a worker holds for it."""
    usual = await _set_limits(rig, str(HELD_MILLISECONDS_MAX), str(LOOKED_AT_EVERY_MILLISECONDS))
    try:
        await rig.wires.worker_broker.cut()  # a connection keeps to the limits that it began with
        await rig.wires.worker_broker.mend()
        await rig.system.until_ready()
        served = _times_served(rig)
        await rig.wires.worker_database.cut()
        async with asyncio.timeout(TAKEN_BACK_WITHIN_SECONDS):
            while _times_served(rig) == served:
                await asyncio.sleep(0.1)
    finally:
        await _set_limits(rig, *usual)
        await rig.wires.worker_database.mend()


def _times_served(rig: Rig) -> int:
    """Return how often workers have begun to serve on a connection."""
    return sum(worker.log.read_text().count('"worker serves"') for worker in rig.system.workers)


async def _set_limits(rig: Rig, held: str, looked_at_every: str) -> list[str]:
    """Set how long a message may be held and how often that is looked at; return what was set before."""
    set_both = (
        "Keys = [consumer_timeout, channel_tick_interval],"
        "Before = [Value || Key <- Keys, {ok, Value} <- [application:get_env(rabbit, Key)]],"
        f"application:set_env(rabbit, consumer_timeout, {held}),"
        f"application:set_env(rabbit, channel_tick_interval, {looked_at_every}),"
        "lists:flatten(lists:join(32, [integer_to_list(Value) || Value <- Before]))."
    )
    told = await asyncio.to_thread(rig.servers.rabbitmq.run, "rabbitmqctl", "--quiet", "eval", set_both)
    return told.strip().strip('"').split()
