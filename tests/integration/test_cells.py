"""Two brands side by side on real servers: each has its own books, and no fault of one reaches the other."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from subprocess import CompletedProcess

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from sqlalchemy import text

from shared.broker.topology import DEAD_QUEUE, EXCHANGE, UNSIGNED_QUEUE, shard_queue
from shared.settings import BrokerSettings
from simulator.history import ReplyMeaning
from tests.support.servers import Servers
from tests.support.system import System
from tests.support.two_cells import CELL_OF, PLAYER, TwoCells, new_id, two_cells
from worker.cli.exit_codes import ExitCode

pytestmark = pytest.mark.any_server

WINDOW_SECONDS = 2.5


@pytest.fixture(scope="module")
async def cells(servers: Servers) -> AsyncIterator[TwoCells]:
    async with two_cells(servers) as started:
        yield started


def lines(ended: CompletedProcess[str]) -> list[dict[str, object]]:
    assert ended.returncode == ExitCode.OK, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


async def posted(system: System) -> set[str]:
    """Return the providers' ids of all that is posted in a cell."""
    return {tx_id for (tx_id,) in await system.query("SELECT provider_tx_id FROM transfers")}


async def test_win_is_paid_in_the_books_of_its_own_cell(cells: TwoCells) -> None:
    in_main, in_brand2 = new_id(), new_id()
    assert await cells.send("klas", in_main) is await cells.send("hpgames", in_brand2) is ReplyMeaning.PAID
    for system, integration, tx_id in (
        (cells.main, "klas", in_main),
        (cells.brand2, "hpgames", in_brand2),
    ):
        rows = await system.query("SELECT integration, provider_tx_id, player_id FROM transfers")
        assert rows == [(integration, tx_id, PLAYER)]
        assert (await system.balances())[PLAYER] == 1050


async def test_player_of_one_cell_is_unknown_in_another(cells: TwoCells) -> None:
    assert await cells.send("klas", new_id(), "only-in-main") is ReplyMeaning.PAID
    assert await cells.send("hpgames", new_id(), "only-in-main") is ReplyMeaning.REFUSED


async def test_message_of_one_cell_that_is_copied_into_another_pays_nothing(cells: TwoCells) -> None:
    """Both cells have the same keys; what was signed names the cell."""
    tx_id, environment = new_id(), cells.main.environment
    async with (
        await aio_pika.connect(environment["CREDITS_BROKER__URL"]) as main,
        await aio_pika.connect(environment["CREDITS_CELLS__BRAND2__BROKER__URL"]) as brand2,
    ):
        copied, copy = await _tap(await main.channel())
        assert await cells.send("klas", tx_id) is ReplyMeaning.PAID
        message = await asyncio.wait_for(copied.get(), 10)
        other = await brand2.channel()
        exchange = await other.get_exchange(EXCHANGE)
        again = aio_pika.Message(message.body, type=message.type, delivery_mode=2, expiration=60)
        await exchange.publish(again, routing_key=copy)
        for _ in range(300):
            queue = await other.declare_queue(UNSIGNED_QUEUE, passive=True)
            if queue.declaration_result.message_count:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the copy was not put aside")
        assert (await other.declare_queue(DEAD_QUEUE, passive=True)).declaration_result.message_count == 0
    assert tx_id not in await posted(cells.brand2)
    listed = lines(await cells.main.command("dead", "list", "--unsigned", "--json"))
    assert [(line["cell"], bool(line["messages"])) for line in listed] == [("main", False), ("brand2", True)]


async def _tap(
    channel: AbstractChannel,
) -> tuple[asyncio.Queue[AbstractIncomingMessage], str]:
    """Copy what gateways send to the shards."""
    copied: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    queue = await channel.declare_queue(exclusive=True)
    for shard in range(BrokerSettings().shards):
        await queue.bind(EXCHANGE, routing_key=shard_queue(shard))
    await queue.consume(copied.put, no_ack=True)
    return copied, shard_queue(0)


async def test_commands_that_read_go_over_all_cells_and_say_which(cells: TwoCells) -> None:
    tx_id = new_id()
    assert await cells.send("hpgames", tx_id) is ReplyMeaning.PAID
    command = cells.main.command
    shown, player, session = await asyncio.gather(
        command("transfer", "show", tx_id, "--integration", "hpgames", "--json"),
        command("player", "show", PLAYER, "--json"),
        command("session", "show", f"session-of-{PLAYER}", "--integration", "gpas", "--json"),
    )
    (transfer,) = lines(shown)
    assert (transfer["cell"], transfer["posted"]) == ("brand2", True)
    assert [line["cell"] for line in lines(player)] == ["main", "brand2"], "two people of one id"
    assert {line["cell"] for line in lines(session)} == {"main", "brand2"}


async def test_command_that_writes_needs_the_cell_or_an_integration_that_has_one(cells: TwoCells) -> None:
    command = cells.main.command
    nowhere, added, opened, wrong = await asyncio.gather(
        command("player", "add", "ben", "--currency", "EUR"),
        command("player", "add", "ben", "--currency", "EUR", "--cell", "brand2"),
        command("session", "open", "s2", "--integration", "hpgames", "--player", PLAYER),
        command("session", "open", "s2", "--integration", "hpgames", "--player", PLAYER, "--cell", "main"),
    )
    assert (nowhere.returncode, wrong.returncode) == (ExitCode.USAGE, ExitCode.USAGE)
    assert "name one of main, brand2" in nowhere.stderr
    assert "hpgames is an integration of cell brand2" in wrong.stderr
    assert (added.returncode, opened.returncode) == (ExitCode.OK, ExitCode.OK)
    assert await cells.main.query("SELECT id FROM players WHERE id = 'ben'") == []
    assert await cells.brand2.query("SELECT id FROM players WHERE id = 'ben'") == [("ben",)]
    assert await cells.brand2.query("SELECT id FROM sessions WHERE integration = 'hpgames'") == [("s2",)]


async def test_worker_without_its_cell_says_so_in_one_line(cells: TwoCells) -> None:
    ended = await cells.main.command("run")
    assert ended.returncode == ExitCode.SETTINGS
    assert "there are several cells: name one with --cell, of main, brand2" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


async def test_integration_that_has_wins_is_not_moved_to_another_cell(cells: TwoCells) -> None:
    environment = {**cells.main.environment, "CREDITS_INTEGRATIONS__HPGAMES__CELL": "main"}
    moved = await replace(cells.main, environment=environment).command("migrate")
    assert moved.returncode == ExitCode.SETTINGS
    assert "[integrations.hpgames] cell: cell 'brand2' has paid wins of it" in moved.stderr
    served = await cells.main.query(
        "SELECT integration FROM served_integrations WHERE cell IS NULL ORDER BY integration"
    )
    assert served == [(name,) for name in sorted(CELL_OF) if CELL_OF[name] == "main"]


async def test_broker_of_one_cell_that_is_away_is_nothing_to_the_other(cells: TwoCells) -> None:
    await cells.gateways_wire.cut()
    try:
        assert await cells.send("hpgames", new_id()) is ReplyMeaning.ASK_AGAIN
        assert await cells.send("klas", new_id()) is ReplyMeaning.PAID
        assert (await cells.states())["brand2"] == "no connection to the broker"
    finally:
        await cells.gateways_wire.mend()
    await cells.until_ready()


async def test_frozen_broker_of_one_cell_delays_no_win_of_the_other(cells: TwoCells) -> None:
    unpaid = new_id()
    cells.gateways_wire.freeze()
    try:
        waiting = asyncio.ensure_future(cells.send("hpgames", unpaid))
        told = [await cells.timed("klas", new_id()) for _ in range(10)]
        assert [said for said, _ in told] == [ReplyMeaning.PAID] * 10
        assert max(seconds for _, seconds in told) < WINDOW_SECONDS
        assert await waiting is ReplyMeaning.ASK_AGAIN
        states = await cells.states()
        assert states["main"] == "ready" != states["brand2"], "the gateway stays in its load balancer"
    finally:
        await cells.gateways_wire.drop_frozen()
    await cells.until_ready()
    assert await cells.send("hpgames", unpaid) is ReplyMeaning.PAID
    assert unpaid in await posted(cells.brand2)


async def test_broken_books_of_one_cell_are_named_and_the_others_are_read(cells: TwoCells) -> None:
    """The last of the module: these books don't hold any more."""
    async with cells.brand2.engine.begin() as connection:
        await connection.execute(text("UPDATE wallets SET balance_minor = 7 WHERE kind = 'BONUS'"))
    verified = await cells.main.command("verify", "--json")
    assert verified.returncode == ExitCode.NO
    assert "cell brand2: wallet_balance" in verified.stderr
    held = {line["cell"]: line["holds"] for line in map(json.loads, verified.stdout.splitlines())}
    assert held == {"main": True, "brand2": False}
