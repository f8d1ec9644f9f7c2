"""How throughput changes with the time of a commit, the number of workers, and the settings that bound it.

A commit that a replica or a distant database holds up is simulated on the books of the measured system: each
statement that inserts transfers sleeps for so long, which is once for each batch, with its locks held.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import BrokerSettings, WorkerSettings
from shared.settings_http import GatewaySettings
from simulator.client import send_all
from tests.bench import closed_loop, machine, subjects, traffic
from tests.bench.closed_loop import Load
from tests.bench.points import COMMIT, Point, Sizes
from tests.bench.subjects import Subject
from tests.bench.suite import PEAK_CONNECTIONS, Tell
from tests.bench.wrk import VoidRunError
from tests.support.servers import Servers

PLAYERS: Final = 1_000
"""Fewer than elsewhere: each of some twenty gateways asks once whose each session is."""

SECONDS: Final = 3.0
WARM_UP_CONNECTIONS: Final = 64
PER_SECOND_MAX: Final = 8_000

DELAYS_MS: Final = (0, 1, 5, 20)
WORKERS: Final = (1, 2, 4)


class Setting(NamedTuple):
    """A setting whose values are compared, each over these numbers of connections."""

    name: str
    variable: str
    default: int
    values: Sequence[int]
    connections: Sequence[int]
    may_refuse: bool = False


SETTINGS: Final = (
    Setting("[broker] shards", "CREDITS_BROKER__SHARDS", BrokerSettings().shards, (1, 2, 4, 8, 16), (64, 200)),
    Setting(
        "[worker] batch_operations_max",
        "CREDITS_WORKER__BATCH_OPERATIONS_MAX",
        WorkerSettings().batch_operations_max,
        (10, 50, 200, 1_000, 5_000),
        (200,),
    ),
    Setting(
        "[gateway] in_flight_max",
        "CREDITS_GATEWAY__IN_FLIGHT_MAX",
        GatewaySettings().in_flight_max,
        (16, 64, 250, 1_000, 5_000),
        (400,),
        may_refuse=True,
    ),
)


def useful_workers(broker_version: str) -> Sequence[int]:
    """Return how many workers are compared: before RabbitMQ 4 one is active on all shards, the rest wait."""
    return WORKERS if int(broker_version.partition(".")[0]) >= 4 else WORKERS[:1]


def steps(rounds: int) -> int:
    """Return how many steps there are to tell of, at most."""
    commits = len(DELAYS_MS) * len(WORKERS)
    of_settings = sum(len(setting.values) * len(setting.connections) for setting in SETTINGS)
    return rounds * (commits + of_settings) + len(SETTINGS) + 2


async def measure_sizes(servers: Servers, rounds: int, tell: Tell) -> Sizes:
    """Measure all of it, by turns. Raises VoidRunError when something was not as it should be."""
    sizing, named = Sizing(servers, rounds, tell), await machine.describe(servers)
    await sizing.measure_commits(useful_workers(named["RabbitMQ"]))
    for setting in SETTINGS:
        await sizing.measure_setting(setting)
    return Sizes(named, {setting.name: setting.default for setting in SETTINGS}, sizing.points)


@dataclass(frozen=True, slots=True)
class Sizing:
    """What was found so far."""

    servers: Servers
    rounds: int
    tell: Tell
    points: list[Point] = field(default_factory=list)

    async def measure_commits(self, all_workers: Sequence[int]) -> None:
        """Measure commits that take longer and longer, with each number of workers."""
        self.tell("starting systems to slow the commits of")
        async with AsyncExitStack() as at_end:
            systems = {n: await at_end.enter_async_context(self._system(workers=n)) for n in all_workers}
            for _ in range(self.rounds):
                for delay_ms in DELAYS_MS:
                    for workers, subject in systems.items():
                        self.tell(f"commits delayed by {delay_ms} ms, {workers} worker{'s' * (workers > 1)}")
                        await delay_commits(books_of(subject), delay_ms)
                        await self._measure(COMMIT, delay_ms, workers, subject, PEAK_CONNECTIONS)

    async def measure_setting(self, setting: Setting) -> None:
        """Measure each value of a setting, in a system of its own, all of them up at once to take turns."""
        self.tell(f"starting systems with {setting.name} {', '.join(map(str, setting.values))}")
        async with AsyncExitStack() as at_end:
            systems = {
                value: await at_end.enter_async_context(self._system({setting.variable: str(value)}))
                for value in setting.values
            }
            for _ in range(self.rounds):
                for value, subject in systems.items():
                    for connections in setting.connections:
                        self.tell(f"{setting.name} {value}, {connections} connections")
                        await self._measure(
                            setting.name, value, 1, subject, connections, may_be_refused=setting.may_refuse
                        )

    @asynccontextmanager
    async def _system(
        self, settings: Mapping[str, str] = subjects.DEFAULTS, workers: int = 1
    ) -> AsyncIterator[Subject]:
        """Run a system whose gateway knows whose each session is."""
        async with subjects.production(self.servers, settings, workers=workers) as (subject, _):
            sessions = list(traffic.one_win_of_each_session(PLAYERS))
            await send_all(subject.url, sessions, WARM_UP_CONNECTIONS)
            yield subject

    async def _measure(
        self,
        of: str,
        value: int,
        workers: int,
        subject: Subject,
        connections: int,
        *,
        may_be_refused: bool = False,
    ) -> None:
        load = Load("new wins", traffic.wins(PLAYERS), 1, PER_SECOND_MAX, may_be_refused)
        before = await posted(books_of(subject))
        run = await closed_loop.measure(subject, load, connections, SECONDS)
        since = await posted(books_of(subject)) - before
        self.points.append(Point(of, value, workers, run, since.credits / since.batches))


class Posted(NamedTuple):
    """What books hold."""

    credits: int
    batches: int

    def __sub__(self, before: "Posted") -> "Posted":
        """Return what was posted since."""
        return Posted(self.credits - before.credits, self.batches - before.batches)


async def posted(engine: AsyncEngine) -> Posted:
    """Return how many credits the books hold, and how many transactions posted them: one for each batch."""
    statement = "SELECT coalesce(sum(n), 0), count(*) FROM (SELECT count(*) AS n FROM transfers GROUP BY xmin) AS b"
    async with engine.connect() as connection:
        credits_, batches = (await connection.execute(text(statement))).one()
        return Posted(int(credits_), int(batches))


async def delay_commits(engine: AsyncEngine, delay_ms: int) -> None:
    """Have each statement that inserts transfers sleep; with 0, have no such thing at all.

    Raises VoidRunError unless it then does: a statement that inserts none sleeps as long.
    """
    async with engine.begin() as connection:
        await connection.execute(text("DROP TRIGGER IF EXISTS slow_commit ON transfers"))
        if delay_ms:
            for statement in _SLOW_COMMIT:
                await connection.exec_driver_sql(statement.replace("<seconds>", str(delay_ms / 1000)))
    async with engine.begin() as connection:
        began = time.monotonic()
        await connection.execute(text("INSERT INTO transfers SELECT * FROM transfers WHERE false"))
        took_ms = (time.monotonic() - began) * 1000
    if took_ms < delay_ms:
        raise VoidRunError(f"a commit that is delayed by {delay_ms} ms took {took_ms:.1f} ms")


_SLOW_COMMIT: Final = (
    """
    CREATE OR REPLACE FUNCTION commit_slowly() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(<seconds>); RETURN NULL; END $$
    """,
    """
    CREATE TRIGGER slow_commit AFTER INSERT ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION commit_slowly()
    """,
)


def books_of(subject: Subject) -> AsyncEngine:
    """Return the books of a system that has some."""
    assert subject.engine is not None
    return subject.engine
