"""Money on the real stack: processes, RabbitMQ, PostgreSQL, Redis. What counts is that totals are exact."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import pytest

from gateway.providers.base import Win
from shared.money import Currencies
from simulator.client import Response, http_bytes, send_all
from simulator.dialects import dialect_of
from simulator.history import ReplyMeaning
from tests.support.servers import Servers, fresh_database
from tests.support.system import INTEGRATIONS, SESSION, System, running_system
from tests.support.wins import PROVIDERS

pytestmark = pytest.mark.own_servers("rabbitmq", "redis")

CONNECTIONS = 200
PLAYERS = [f"player{n:03}" for n in range(100)]
euro = Currencies()


class Sent(NamedTuple):
    """One request, and what it is about."""

    integration: str
    win: Win
    request: bytes


class Reply(NamedTuple):
    """What a provider reads from a response."""

    paid: bool
    transfer_id: str
    balance: str


def read(integration: str, response: Response) -> Reply:
    """Read a provider's reply as the provider would."""
    meaning, transfer_id, balance = dialect_of(PROVIDERS[integration]).read(response)
    return Reply(meaning is ReplyMeaning.PAID, transfer_id, balance)


def make_wins(system: System, count: int, seed: int, players: Sequence[str] = PLAYERS) -> list[Sent]:
    """Make different wins of all providers."""
    chance = random.Random(seed)
    made = []
    for n in range(count):
        integration = tuple(INTEGRATIONS)[n % len(INTEGRATIONS)]
        player = chance.choice(players)
        amount = f"{chance.randrange(5_000)}.{chance.randrange(100):02}"
        win = Win(str(UUID(int=chance.getrandbits(128))), player, SESSION + player, amount, "EUR", f"round-{n}")
        made.append(Sent(integration, win, http_bytes(integration, system.providers[integration].sample_request(win))))
    return made


def with_repeats(wins: list[Sent], share: float, seed: int) -> list[Sent]:
    """Return the wins and repeats of some of them, shuffled."""
    chance = random.Random(seed)
    sent = wins + chance.choices(wins, k=round(len(wins) * share / (1 - share)))
    chance.shuffle(sent)
    return sent


def reply_within_seconds(seconds: float) -> dict[str, str]:
    """Return the setting for every integration."""
    return {f"CREDITS_INTEGRATIONS__{name.upper()}__REPLY_WITHIN_SECONDS": str(seconds) for name in INTEGRATIONS}


async def send(system: System, sent: Sequence[Sent], connections: int = CONNECTIONS) -> list[Reply]:
    """Send them all at once and read the replies."""
    responses = await send_all(system.url, [one.request for one in sent], connections)
    return [read(one.integration, response) for one, response in zip(sent, responses, strict=True)]


def totals(wins: Sequence[Sent]) -> Counter[str]:
    """Return what each player has won, in minor units."""
    won: Counter[str] = Counter()
    for one in wins:
        won[one.win.player_id] += euro.to_minor(one.win.amount, "EUR")
    return won


async def assert_exact(system: System, wins: Sequence[Sent]) -> None:
    """The books hold each win once, and nothing else."""
    assert await system.query("SELECT count(*) FROM transfers") == [(len(wins),)]
    won = totals(wins)
    assert {player: balance for player, balance in (await system.balances()).items() if balance} == {
        player: total for player, total in won.items() if total
    }
    verified = await system.command("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def test_ten_thousand_wins_with_repeats_are_paid_exactly_once(servers: Servers) -> None:
    async with running_system(servers) as system:
        await system.add_players(PLAYERS)
        wins = make_wins(system, 8_000, seed=1)
        sent = with_repeats(wins, share=0.2, seed=2)
        assert len(sent) == 10_000
        replies = await send(system, sent)
        assert all(reply.paid for reply in replies)
        # A repeat, whether it came first or last, tells the original's transfer and balance.
        told: dict[tuple[str, str], set[Reply]] = {}
        for one, reply in zip(sent, replies, strict=True):
            told.setdefault((one.integration, one.win.provider_tx_id), set()).add(reply)
        assert len(told) == len(wins)
        assert all(len(said) == 1 for said in told.values())
        await assert_every_reply_is_in_the_books(system, told)
        await assert_exact(system, wins)


async def assert_every_reply_is_in_the_books(system: System, told: dict[tuple[str, str], set[Reply]]) -> None:
    """Each reply's transfer and balance are what the ledger has for that win."""
    rows = await system.query(
        "SELECT integration, provider_tx_id, CAST(id AS text), real_balance_minor + bonus_balance_minor FROM transfers"
    )
    for integration, provider_tx_id, transfer_id, balance_minor in rows:
        (reply,) = told[integration, provider_tx_id]
        assert reply.transfer_id == transfer_id
        assert euro.to_minor(reply.balance, "EUR") == balance_minor


async def test_same_win_sent_to_two_workers_at_once_is_paid_once(servers: Servers) -> None:
    """Two brokers, one ledger: single active consumer can't help, and each worker gets every win."""
    database_url = await fresh_database(servers)
    async with (
        running_system(servers, workers=1, database_url=database_url, CREDITS_CACHE__URL="memory://") as one,
        running_system(servers, workers=1, database_url=database_url, CREDITS_CACHE__URL="memory://") as other,
    ):
        await one.add_players(PLAYERS[:3])
        wins = make_wins(one, 600, seed=3, players=PLAYERS[:3])
        here, there = await asyncio.gather(send(one, wins, 50), send(other, wins, 50))
        assert all(reply.paid for reply in here)
        assert here == there
        await assert_exact(one, wins)


async def test_redis_stopped_before_and_during_the_run_changes_no_total(servers: Servers) -> None:
    async with running_system(servers) as system:
        await system.add_players(PLAYERS)
        wins = make_wins(system, 1_500, seed=4)
        await asyncio.to_thread(servers.redis.stop)
        try:
            assert all(reply.paid for reply in await send(system, with_repeats(wins[:500], 0.2, 5)))
        finally:
            await asyncio.to_thread(servers.redis.start)
        under_way = asyncio.create_task(send(system, with_repeats(wins[500:], 0.2, 6), 20))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(servers.redis.stop)
        await asyncio.to_thread(servers.redis.start)
        assert all(reply.paid for reply in await under_way)
        await assert_exact(system, wins)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
async def test_worker_that_ends_under_load_loses_no_win_and_no_reply(servers: Servers, sign: signal.Signals) -> None:
    async with running_system(servers) as system:
        await system.add_players(PLAYERS)
        wins = make_wins(system, 3_000, seed=7)
        under_way = asyncio.create_task(send(system, wins, 50))
        await asyncio.sleep(0.2)
        first = system.workers[0]
        status = await first.end(sign)
        assert status == (0 if sign is signal.SIGTERM else -signal.SIGKILL)
        replies = await under_way
        # A killed worker's batch is redelivered to the other in well under the window.
        assert all(reply.paid for reply in replies)
        await assert_exact(system, wins)


async def test_hot_player_that_moves_from_worker_to_worker_gets_every_win_once(servers: Servers) -> None:
    """All wins of a player are on one shard: the workers that hold it end, and the next takes it over."""
    async with running_system(servers, workers=8, CREDITS_BROKER__SHARDS="2") as system:
        await system.add_players(PLAYERS[:9])
        wins = make_wins(system, 2_000, seed=10, players=PLAYERS[:1] * 8 + PLAYERS[1:9])
        under_way = asyncio.create_task(send(system, with_repeats(wins, 0.2, 11), 50))
        while not await system.query("SELECT 1 FROM transfers LIMIT 1"):
            await asyncio.sleep(0.01)
        for worker in system.workers[:4]:
            await worker.end()
        assert all(reply.paid for reply in await under_way)
        await assert_exact(system, wins)


async def test_win_that_nobody_could_serve_in_time_is_paid_late_without_a_retry(servers: Servers) -> None:
    async with running_system(servers, workers=1, **reply_within_seconds(0.5)) as system:
        await system.add_players(PLAYERS[:1])
        wins = make_wins(system, 8, seed=8, players=PLAYERS[:1])
        # The first tell the gateway whose session it is: a GPAS win can't be sent to the ledger before.
        assert all(reply.paid for reply in await send(system, wins[:4]))
        await system.workers[0].end()
        # One after another: what waits behind another until its deadline is never sent, and only told so.
        assert not any(reply.paid for reply in await send(system, wins[4:], connections=1))
        system.workers[0].start()
        async with asyncio.timeout(30):
            while await system.query("SELECT count(*) FROM transfers") != [(len(wins),)]:
                await asyncio.sleep(0.1)
        assert all(reply.paid for reply in await send(system, wins))
        await assert_exact(system, wins)


async def test_lost_broker_fails_calls_at_once_and_is_found_again(servers: Servers) -> None:
    async with running_system(servers, workers=1, **reply_within_seconds(60)) as system:
        await system.add_players(PLAYERS)
        wins = make_wins(system, 400, seed=9)
        assert all(reply.paid for reply in await send(system, wins[:200]))
        await asyncio.to_thread(servers.rabbitmq.stop)
        try:
            await system.until_ready(503)
            async with asyncio.timeout(30):  # half of what one call that waits for its deadline would take
                assert not any(reply.paid for reply in await send(system, wins[200:], 20))
        finally:
            await asyncio.to_thread(servers.rabbitmq.start)
        await system.until_ready()
        assert all(reply.paid for reply in await send(system, wins))
        await assert_exact(system, wins)
