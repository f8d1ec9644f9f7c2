"""The faults, by name. `python -m tests.faults --list` prints the names."""

from collections.abc import Mapping
from typing import Final

from tests.faults import failover, holding, injections, poison, resharding, upgrading
from tests.faults.crashing import STEPS
from tests.faults.experiment import Fault
from tests.faults.rig import Rig
from tests.support.servers import Server

WIRES: Final[Mapping[str, injections.WireOf]] = {
    "gateway and broker": lambda rig: rig.wires.gateway_broker,
    "worker and broker": lambda rig: rig.wires.worker_broker,
    "worker and database": lambda rig: rig.wires.worker_database,
    "worker and cache": lambda rig: rig.wires.worker_cache,
}


CI_STEPS: Final = frozenset({"after the commit"})


def _broker(rig: Rig) -> Server:
    return rig.servers.rabbitmq


def _database(rig: Rig) -> Server:
    return rig.servers.postgres


def _cache(rig: Rig) -> Server:
    return rig.servers.redis


_kinds = [
    Fault("a worker is killed", injections.kill(lambda rig: rig.serving)),
    Fault("all workers are killed, and stay away beyond the window", injections.all_workers_killed),
    Fault(
        "all workers are away beyond the window, and no provider sends again",
        injections.all_workers_killed,
        in_ci=True,
        retries=False,
    ),
    *(Fault(f"a worker dies {step}", injections.die_at(step), step in CI_STEPS) for step in STEPS),
    Fault("a worker's clock is an hour ahead, then an hour back", injections.clock_steps),
    Fault("a worker is stopped for 10 s, and goes on", injections.stop(lambda rig: rig.serving, 10)),
    Fault("the gateway is killed", injections.kill(lambda rig: rig.system.gateway), in_ci=True),
    Fault("workers are restarted one after the other", injections.rolling_restart),
    Fault("workers grow from 2 to 4 and shrink to 2", injections.scaling),
    *(
        Fault(f"shards grow from 16 to 32 and shrink to 8, {first} first", resharding.reshard(first))
        for first in upgrading.ORDERS
    ),
    *(
        Fault(
            f"the last release takes this one's place and is upgraded, {first} first", strike, in_ci=first == "gateways"
        )
        for first, strike in ((first, upgrading.replace_release(first)) for first in upgrading.ORDERS)
    ),
    Fault("the broker is killed", injections.crash_server(_broker), in_ci=True),
    Fault("the broker is restarted", injections.restart_server(_broker)),
    Fault("the broker stops for longer than anybody waits", injections.pause_server(_broker)),
    Fault("the broker's disk is full", injections.disk_alarm),
    Fault("the broker's memory is full", injections.memory_alarm),
    Fault("the database is killed", injections.crash_server(_database), in_ci=True),
    Fault("the database is restarted", injections.restart_server(_database)),
    Fault("the database stops for longer than anybody waits", injections.pause_server(_database)),
    Fault("the database has no connections left", injections.no_connections_left),
    Fault(
        "the database is away for longer than a worker may hold a message",
        holding.beyond_what_the_broker_allows,
    ),
    Fault("the cache is killed", injections.crash_server(_cache)),
    Fault("the cache stops for a while", injections.pause_server(_cache)),
    Fault("the cache lies", injections.cache_lies, in_ci=True),
    Fault(
        "the cache says of a win what is true of its twin",
        poison.poisoned(poison.of_its_twin),
        settings_of=poison.patient_settings,
    ),
    Fault("the cache holds forged values", poison.poisoned(poison.forged), settings_of=poison.patient_settings),
    Fault("the cache is emptied again and again", injections.cache_flushed),
    Fault("the cache's primary is killed, and its sentinels promote the replica", failover.cache_primary_killed),
]
for _between, _wire in WIRES.items():
    _kinds += [
        Fault(f"the wire between {_between} is cut", injections.cut(_wire)),
        Fault(
            f"the wire between {_between} is half-open, then dropped",
            injections.freeze(_wire, injections.BEYOND_WINDOW_SECONDS, dropped=True),
        ),
        Fault(
            f"the wire between {_between} swallows everything, then delivers it",
            injections.freeze(_wire, injections.BEYOND_WINDOW_SECONDS, dropped=False),
        ),
        Fault(f"the wire between {_between} takes 0.4 s there and back", injections.slow(_wire)),
    ]

FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _kinds}
"""By name."""
