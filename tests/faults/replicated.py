"""What can be done to a database of three machines, and the faults that do it, by name.

Workers reach it in three ways: through HAProxy, through PgBouncer before it, or by a URL that names all
three machines. A fault is tried in those ways in which it may come out otherwise.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from simulator.history import Identity
from tests.faults.books import read_books
from tests.faults.experiment import WINS_PER_SECOND, Fault, Strike
from tests.faults.injections import BEYOND_WINDOW_SECONDS
from tests.faults.loss import lost_between
from tests.faults.rig import POLL_SECONDS, Rig, SettingsOf
from tests.support.servers import Servers
from tests.support.servers.replicated import Machine, Replicated
from tests.support.servers.server import PASSWORD, USER

HURRY: Final = 4.0
"""Less than in other faults: half a minute of wins that are sent again ten times as fast as by any provider
would be a flood of its own."""

RARE: Final = 0.8
"""Wins a second: fewer than one, so that nearly each is a batch of its own."""

PROMOTED_WITHIN_SECONDS: Final = 60.0
FOUND_SECONDS: Final = 3.0
"""How long repeats come and find what no standby has."""

LOST_SECONDS: Final = 3.0
"""How long a primary goes on paying alone: Patroni lets it for no more than ten seconds."""

STATEMENT_SECONDS: Final = 1
"""A worker's time limit where its end is what the fault is about, well before Patroni's."""

WELL_KEPT: Final = {"synchronous_mode": "quorum", "synchronous_mode_strict": "true"}
CARELESS: Final = {"synchronous_mode": "off", "synchronous_mode_strict": "false"}

PID_FILE: Final = "/var/lib/postgresql/17/credits/postmaster.pid"


def database_of(rig: Rig) -> Replicated:
    """Return the rig's database, by its machines."""
    database = rig.servers.postgres
    assert isinstance(database, Replicated)
    return database


async def leading(rig: Rig) -> Machine:
    """Return the machine that is the primary."""
    database = database_of(rig)
    name = await asyncio.to_thread(database.leader)
    assert name is not None
    return database.nodes[name]


def others(rig: Rig, leader: Machine) -> list[Machine]:
    """Return the machines that don't lead."""
    return [node for node in database_of(rig).nodes.values() if node is not leader]


async def until_another_leads(rig: Rig, before: Machine) -> float:
    """Return once another machine is the primary; return a moment shortly before, when none was."""
    deadline = time.monotonic() + PROMOTED_WITHIN_SECONDS
    while True:
        asked_at = time.time()
        if await asyncio.to_thread(database_of(rig).leader) not in {None, before.name}:
            rig.replaced_at = asked_at
            return asked_at
        assert time.monotonic() < deadline, "no standby has become the primary"
        await asyncio.sleep(POLL_SECONDS)


async def until_whole(rig: Rig, *, replicated: bool = True) -> None:
    """Return when all machines are the parts of one database."""
    await asyncio.to_thread(database_of(rig).wait_until_whole, replicated=replicated)


async def switchover(rig: Rig) -> None:
    """Have another machine lead, as an operator does before the leader's maintenance."""
    leader = await leading(rig)
    command = (
        "patronictl",
        "-c",
        "/etc/patroni/config.yml",
        "switchover",
        "--leader",
        leader.name,
        "--force",
    )
    await asyncio.to_thread(leader.run, *command)
    await until_another_leads(rig, leader)
    await until_whole(rig)


async def machine_killed(rig: Rig) -> None:
    """Take the leader's machine away, with its member of etcd; bring it back when another leads."""
    leader = await leading(rig)
    await asyncio.to_thread(leader.kill)
    await until_another_leads(rig, leader)
    await asyncio.to_thread(leader.start)
    await until_whole(rig)


async def postgres_killed(rig: Rig) -> None:
    """Kill PostgreSQL on the leader's machine, and nothing else."""
    leader = await leading(rig)
    await asyncio.to_thread(leader.run, "sh", "-c", f"kill -9 $(head -1 {PID_FILE})")
    await until_another_leads(rig, leader)
    await until_whole(rig)


async def frozen(rig: Rig) -> None:
    """Freeze the leader's machine until another leads, and let it go on, a primary to itself still."""
    leader = await leading(rig)
    await asyncio.to_thread(leader.container.pause)
    try:
        await until_another_leads(rig, leader)
        await asyncio.sleep(BEYOND_WINDOW_SECONDS)
    finally:
        await asyncio.to_thread(leader.container.unpause)
    await until_whole(rig)


def standbys_killed(count: int) -> Strike:
    """Take so many standbys away for a while."""

    async def strike(rig: Rig) -> None:
        struck = others(rig, await leading(rig))[:count]
        await asyncio.gather(*(asyncio.to_thread(machine.kill) for machine in struck))
        await asyncio.sleep(BEYOND_WINDOW_SECONDS)
        await asyncio.gather(*(asyncio.to_thread(machine.start) for machine in struck))
        await until_whole(rig)

    return strike


async def partition(rig: Rig) -> None:
    """Cut the leader off from the others, reached by workers still, until it shows wins that it alone has.

    Those are sent again, and find themselves there. Then it dies, and never gives them to anybody.
    """
    leader = await leading(rig)
    await asyncio.to_thread(database_of(rig).cut_off, leader.name)
    shown = await _shown_by_nobody_else(rig, leader)
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.senders.send_again(shown))
        await asyncio.sleep(FOUND_SECONDS)
        await _dies_cut_off(rig, leader)
    await until_whole(rig)


async def unconfirmed(rig: Rig) -> None:
    """Let no commit wait for a standby. The leader is cut off, pays on for a while, and dies: that is lost.

    All that was lost is sent again by its providers.
    """
    database = database_of(rig)
    await asyncio.to_thread(database.configure, **CARELESS)
    try:
        await until_whole(rig, replicated=False)
        leader = await leading(rig)
        await asyncio.to_thread(database.cut_off, leader.name)
        await asyncio.sleep(LOST_SECONDS)
        promoted_at = await _dies_cut_off(rig, leader)
        rig.loss = lost_between(rig.senders.attempts, await read_books(rig.engine), promoted_at)
        await rig.senders.send_again(rig.loss.identities)
        await until_whole(rig, replicated=False)
    finally:
        await asyncio.to_thread(database.configure, **WELL_KEPT)
        await until_whole(rig)


async def _dies_cut_off(rig: Rig, leader: Machine) -> float:
    await asyncio.to_thread(leader.kill)
    promoted_at = await until_another_leads(rig, leader)
    await asyncio.to_thread(database_of(rig).heal, leader.name)
    await asyncio.to_thread(leader.start)
    return promoted_at


async def _shown_by_nobody_else(rig: Rig, leader: Machine) -> set[Identity]:
    """Return the wins that the leader shows and no standby has, once there are some.

    Their commits' wait for a standby was given up.
    """
    standbys = others(rig, leader)
    async with asyncio.timeout(PROMOTED_WITHIN_SECONDS):
        while True:
            held = set().union(*[await _wins_on(rig, machine) for machine in standbys])
            if shown := await _wins_on(rig, leader) - held:
                return shown
            await asyncio.sleep(POLL_SECONDS)


async def _wins_on(rig: Rig, machine: Machine) -> set[Identity]:
    """Return the wins that a machine shows."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=machine.port, user=USER, password=PASSWORD, database=rig.engine.url.database
    )
    try:
        rows = await connection.fetch("SELECT integration, provider_tx_id FROM transfers")
        return {(row[0], row[1]) for row in rows}
    finally:
        await connection.close()


def by_hosts(servers: Servers, url: str) -> Mapping[str, str]:
    """Have workers know all machines."""
    assert isinstance(servers.postgres, Replicated)
    hosts = "&".join(f"host=127.0.0.1:{node.port}" for node in servers.postgres.nodes.values())
    database = url.rpartition("/")[2]
    return {"CREDITS_LEDGER__DATABASE_URL": f"postgresql+asyncpg://{USER}:{PASSWORD}@/{database}?{hosts}"}


def by_pgbouncer(servers: Servers, url: str) -> Mapping[str, str]:
    """Have workers know PgBouncer alone."""
    assert isinstance(servers.postgres, Replicated)
    place, database = f"127.0.0.1:{servers.postgres.pooled_port}", url.rpartition("/")[2]
    return {
        "CREDITS_LEDGER__DATABASE_URL": f"postgresql+asyncpg://{USER}:{PASSWORD}@{place}/{database}",
        "CREDITS_LEDGER__POOLER": "transaction",
    }


def by_haproxy(_: Servers, __: str) -> Mapping[str, str]:
    """Have workers know HAProxy alone, which they reach by the wire to the database."""
    return {}


def hurried(way: SettingsOf) -> SettingsOf:
    """Have workers give a commit up before Patroni gives the leader up."""

    def settings_of(servers: Servers, url: str) -> Mapping[str, str]:
        limit = {"CREDITS_LEDGER__STATEMENT_SECONDS_MAX": str(STATEMENT_SECONDS)}
        return {**way(servers, url), **limit}

    return settings_of


def _fault(name: str, strike: Strike, way: SettingsOf = by_haproxy, **more: Any) -> Fault:
    return Fault(name, strike, settings_of=way, hurry=HURRY, **more)


WAYS: Final[Mapping[str, SettingsOf]] = {"HAProxy": by_haproxy, "three hosts": by_hosts}
OFTEN: Final[Mapping[str, float]] = {"60 wins a second": WINS_PER_SECOND, "a win now and then": RARE}

_kinds = [
    *(_fault(f"a switchover, by {name}", switchover, way) for name, way in WAYS.items()),
    *(_fault(f"the leader's machine is killed, by {name}", machine_killed, way) for name, way in WAYS.items()),
    _fault("the leader's machine is killed, by PgBouncer", machine_killed, by_pgbouncer),
    _fault("the leader's PostgreSQL is killed, by HAProxy", postgres_killed),
    *(_fault(f"the leader is frozen, then thawed, by {name}", frozen, way) for name, way in WAYS.items()),
    _fault("a standby's machine is killed, by HAProxy", standbys_killed(1)),
    _fault("both standbys' machines are killed, by three hosts", standbys_killed(2), by_hosts),
    *(
        _fault(
            f"the primary is cut off and dies, {often}, by {name}",
            partition,
            hurried(way),
            wins_per_second=rate,
        )
        for often, rate in OFTEN.items()
        for name, way in WAYS.items()
    ),
    *(
        _fault(f"the primary is cut off and dies, and no commit waited, by {name}", unconfirmed, way, loses=True)
        for name, way in WAYS.items()
    ),
]
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _kinds}
"""By name."""
