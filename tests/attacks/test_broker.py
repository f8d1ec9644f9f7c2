"""A stranger with the broker's password: can stop what he likes, and credits nobody, tells nobody a lie."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from uuid import uuid4

import httpx
import pytest
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError
from pamqp.commands import Basic
from prometheus_client.parser import text_string_to_metric_families

from gateway.providers.contract import Win
from shared.credit import Credit
from shared.message_keys import MessageKeys, Purpose
from shared.outcome import Holder, Outcome, Receipt, Result
from shared.topology import DEAD_QUEUE, EXCHANGE, LATE_QUEUE, shard_of, shard_queue
from shared.wire import (
    BATCH_QUESTIONS_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGE_TYPE,
    STALE_SECONDS,
    UNSIGNED_TYPE,
    Answer,
    Batch,
    BatchReply,
    FindPlayer,
    Replies,
    encode,
    unix_ms,
)
from tests.client import http_bytes, send_all
from tests.credits import win
from tests.servers import Servers
from tests.simulator.history import Said
from tests.simulator.replies import told
from tests.support.stranger import GARBAGE, WAIT_SECONDS, Stranger, put_aside, stranger_to
from tests.system import KEYS, SESSION, System, running_system

PLAYERS = ("anna", "ben", "mallory")
SHARD = shard_queue(shard_of("anna", 16))
SIGNED = Basic.Properties(message_type=MESSAGE_TYPE, delivery_mode=2)
THIEF = MessageKeys([b"a key that the thief has made up himself"])
FLOOD_MESSAGES = 3_000
BITS = (0, 8 * 31, 8 * 32 + 3, 8 * 60)


@pytest.fixture(scope="module")
async def system(servers: Servers) -> AsyncIterator[System]:
    """One system for all attacks: what one of them left broken, the next would find."""
    patient = {f"CREDITS_INTEGRATIONS__{name}__REPLY_WITHIN_SECONDS": "4" for name in ("KLAS", "GPAS")}
    async with running_system(servers, workers=1, **patient) as started:
        await started.add_players(PLAYERS)
        yield started
        assert all(process.is_running for process in started.processes)
        assert (await started.command("verify", "--full")).returncode == 0


@pytest.fixture
async def stranger(system: System) -> AsyncIterator[Stranger]:
    async with stranger_to(system) as connected:
        yield connected


@pytest.fixture
async def vandal(system: System) -> AsyncIterator[Stranger]:
    """One whose own queue takes nothing: what can't be routed comes back to the gateway."""
    async with stranger_to(system, overhears=False) as connected:
        yield connected


def credit(player_id: str = "mallory") -> Credit:
    return win(str(uuid4()), player_id=player_id, round_id=None)


def batch(*credits_: Credit, reply_to: str = "", number: int = 1) -> bytes:
    return encode(Batch(number, unix_ms() + 60_000, list(credits_), reply_to))


async def pay(system: System, count: int = 1, player_id: str = "anna", integration: str = "klas") -> int:
    """Send so many honest wins at once; return how many were told as paid."""
    provider = system.providers[integration]
    wins = [Win(str(uuid4()), player_id, SESSION + player_id) for _ in range(count)]
    requests = [http_bytes(integration, provider.compose(one)) for one in wins]
    responses = await send_all(system.url, requests, min(count, 20))
    return sum(told(provider, "EUR", response)[0] is Said.PAID for response in responses)


async def dropped(system: System) -> dict[str, float]:
    """Return how many replies the gateway has dropped, by reason."""
    async with httpx.AsyncClient(base_url=system.url) as client:
        exposition = (await client.get("/metrics")).text
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == "credits_gateway_dropped_replies_total"
    }


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():
            await asyncio.sleep(0.05)


async def transfers(system: System) -> int:
    ((number,),) = await system.query("SELECT count(*) FROM transfers")
    return int(number)


def flipped(body: bytes, bit: int) -> bytes:
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def test_forged_batch_credits_nobody_and_is_answered_to_nobody(
    system: System, stranger: Stranger
) -> None:
    assert await pay(system) == 1
    captured, _ = await stranger.overheard_batch()
    await stranger.forget()
    before = await transfers(system)
    forged = batch(credit(), reply_to=stranger.own_queue)
    bodies = [forged, THIEF.sign(Purpose.BATCH, forged), b"", *(flipped(captured, bit) for bit in BITS)]
    for queue in (SHARD, LATE_QUEUE):
        for body in bodies:
            await stranger.publish(body, queue, reply_to=stranger.own_queue)
        await stranger.publish(forged, queue, message_type=UNSIGNED_TYPE, reply_to=stranger.own_queue)
    aside = await put_aside(system, 2 * (len(bodies) + 1))
    assert not any(message.authentic for message in aside)
    assert await pay(system) == 1
    await stranger.overheard_batch()
    assert await stranger.overheard() is None
    assert await transfers(system) == before + 1


async def test_replayed_batch_pays_nothing_twice_and_is_answered_to_its_gateway_alone(
    system: System, stranger: Stranger
) -> None:
    before, refused = await transfers(system), (await dropped(system)).get("too late", 0)
    assert await pay(system) == 1
    captured, _ = await stranger.overheard_batch()
    for queue in (SHARD, shard_queue(0), LATE_QUEUE):
        for _ in range(5):
            await stranger.publish(captured, queue, reply_to=stranger.own_queue)

    async def is_answered() -> bool:
        return (await dropped(system)).get("too late", 0) == refused + 10

    await until(is_answered)
    assert await pay(system) == 1
    await stranger.overheard_batch()
    assert await stranger.overheard() is None
    assert await transfers(system) == before + 2


async def test_batch_that_was_captured_long_ago_is_left_to_a_person(
    system: System, stranger: Stranger
) -> None:
    """What was refused in its time, as for an unknown player, is not paid because somebody sends it again."""
    before, long_ago = await transfers(system), unix_ms() - 1_000 * (STALE_SECONDS + 60)
    body = KEYS.sign(Purpose.BATCH, encode(Batch(1, long_ago, [credit()], "amq.gen-gone")))
    await stranger.publish(body, SHARD)
    await stranger.publish(body, LATE_QUEUE)
    aside = await put_aside(system, 2)
    assert [(message.authentic, message.reason[:5]) for message in aside] == [(True, "stale")] * 2
    assert await transfers(system) == before


async def test_forged_reply_is_believed_by_no_gateway_though_its_number_is_right(
    system: System, stranger: Stranger
) -> None:
    """The worker is stopped meanwhile: nothing but lies comes, until it goes on and the truth is told."""
    before = await dropped(system)
    worker = system.workers[0]
    worker.send(signal.SIGSTOP)
    try:
        paying = asyncio.create_task(pay(system))
        captured, waiting = await stranger.overheard_batch()
        lies = Outcome(Result.POSTED, Receipt("forged", "EUR", 1050, 0, 1050, 0))
        payload = encode(Replies(waiting.reply_to, "worker", [BatchReply(waiting.number, [lies])]))
        forged = [
            payload,
            THIEF.sign(Purpose.REPLY, payload),
            KEYS.sign(Purpose.BATCH, payload),
            captured,
            b"",
        ]
        elsewhere = encode(Replies("amq.gen-other", "worker", [BatchReply(waiting.number, [lies])]))
        forged.append(KEYS.sign(Purpose.REPLY, elsewhere))
        for body in forged:
            await stranger.publish(body, waiting.reply_to)
        await stranger.publish(bytes(MESSAGE_BYTES_MAX + 1), waiting.reply_to)

        async def are_dropped() -> bool:
            now = await dropped(system)
            new = {reason: now[reason] - before.get(reason, 0) for reason in now}
            return (new.get("unsigned"), new.get("oversized")) == (len(forged), 1)

        await until(are_dropped)
        assert not paying.done()
    finally:
        worker.send(signal.SIGCONT)
    assert await paying == 1
    assert await system.query("SELECT 1 FROM transfers WHERE id::text = 'forged'") == []


async def test_forged_owner_of_a_session_is_not_remembered(system: System, stranger: Stranger) -> None:
    worker, balances = system.workers[0], await system.balances()
    worker.send(signal.SIGSTOP)
    try:
        paying = asyncio.create_task(pay(system, player_id="ben", integration="gpas"))
        _, waiting = await stranger.overheard_batch()
        answers: list[Answer] = [Holder("mallory", "EUR", 0, 0)] * len(waiting.questions)
        payload = encode(Replies(waiting.reply_to, "worker", [BatchReply(waiting.number, answers)]))
        await stranger.publish(THIEF.sign(Purpose.REPLY, payload), waiting.reply_to)
        await stranger.publish(payload, waiting.reply_to)
    finally:
        worker.send(signal.SIGCONT)
    assert await paying == 1
    assert await system.balances() == {**balances, "ben": balances["ben"] + 1050}


async def test_replayed_reply_answers_nothing(system: System, stranger: Stranger) -> None:
    assert await pay(system) == 1
    _, answered = await stranger.overheard_batch()
    before = (await dropped(system)).get("too late", 0)
    lies = BatchReply(answered.number, [Outcome(Result.UNKNOWN_PLAYER)])
    captured = KEYS.sign(Purpose.REPLY, encode(Replies(answered.reply_to, "worker", [lies])))
    await stranger.publish_all([captured] * 20, answered.reply_to)

    async def are_dropped() -> bool:
        return (await dropped(system)).get("too late", 0) == before + 20

    await until(are_dropped)
    assert await pay(system, 5) == 5


@pytest.mark.parametrize("signed", [False, True])
async def test_quarter_of_a_million_credits_in_one_message_stop_no_honest_win(
    system: System,
    stranger: Stranger,
    signed: bool,  # noqa: FBT001
) -> None:
    before = await transfers(system)
    number = 250_000
    payload = encode(Batch(1, unix_ms() + 60_000, [credit()] * number))
    body = KEYS.sign(Purpose.BATCH, payload) if signed else payload
    await stranger.publish(body, SHARD)
    assert await pay(system, 20) == 20
    (aside,) = await put_aside(system, 1)
    assert len(aside.body) == len(body) > MESSAGE_BYTES_MAX
    assert await transfers(system) == before + 20


async def test_batch_of_more_questions_than_any_gateway_asks_is_not_worked_on(
    system: System, stranger: Stranger
) -> None:
    many = [FindPlayer("anna")] * (BATCH_QUESTIONS_MAX + 1)
    await stranger.publish(KEYS.sign(Purpose.BATCH, encode(Batch(1, unix_ms(), list(many)))), SHARD)
    (aside,) = await put_aside(system, 1)
    assert f"{BATCH_QUESTIONS_MAX + 1} questions" in aside.reason


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_in_the_properties_costs_nobody_the_connection(
    system: System, stranger: Stranger, raw: bytes
) -> None:
    """One such message, delivered again after each new connection, would be the last that is ever served."""
    log = system.workers[0].log
    connected = log.read_text().count("worker serves")
    assert await pay(system) == 1
    _, answered = await stranger.overheard_batch()
    taken = [await stranger.try_to_publish(b"garbage", queue, raw) for queue in (SHARD, LATE_QUEUE)]
    await stranger.try_to_publish(b"garbage", answered.reply_to, raw)
    await put_aside(system, sum(taken))
    assert await pay(system) == 1
    _, later = await stranger.overheard_batch()
    assert later.reply_to == answered.reply_to, "the gateway has lost its connection"
    assert log.read_text().count("worker serves") == connected


async def test_flood_of_poison_keeps_no_honest_win_waiting_for_long(
    system: System, stranger: Stranger
) -> None:
    flood = asyncio.create_task(stranger.publish_all([b"poison"] * FLOOD_MESSAGES, SHARD))
    assert await pay(system, 40) == 40
    await flood
    assert await pay(system, 40) == 40

    async def is_over() -> bool:
        log = system.workers[0].log.read_text()
        return await queued(stranger, DEAD_QUEUE) == FLOOD_MESSAGES and "poison message" in log

    await until(is_over)
    assert system.workers[0].log.read_text().count("poison message") < FLOOD_MESSAGES / 10
    await stranger.channel.queue_purge(DEAD_QUEUE)


async def queued(stranger: Stranger, queue: str) -> int:
    declared = await stranger.channel.queue_declare(queue, passive=True)
    return declared.message_count or 0


async def is_gone(system: System, queue: str) -> bool:
    async with stranger_to(system, overhears=False) as other:
        try:
            await queued(other, queue)
        except ChannelNotFoundEntity:
            return True
    return False


async def delete_queue(stranger: Stranger, queue: str) -> None:
    await stranger.channel.queue_delete(queue)


async def delete_exchange(stranger: Stranger, exchange: str) -> None:
    await stranger.channel.exchange_delete(exchange)


async def unbind(stranger: Stranger, queue: str) -> None:
    await stranger.channel.queue_unbind(queue, EXCHANGE, routing_key=queue)


Deletion = Callable[[Stranger, str], Awaitable[None]]
DELETED: Sequence[tuple[Deletion, str]] = (
    (delete_queue, SHARD),
    (delete_queue, LATE_QUEUE),
    (delete_queue, DEAD_QUEUE),
    (delete_exchange, EXCHANGE),
    (unbind, SHARD),
)


@pytest.mark.parametrize(("delete", "name"), DELETED)
async def test_what_was_deleted_is_made_again_without_a_restart(
    system: System, vandal: Stranger, delete: Deletion, name: str
) -> None:
    await delete(vandal, name)
    if name == DEAD_QUEUE:
        await until(partial(is_gone, system, name))  # what comes to a queue while it goes, goes with it
        await vandal.publish(b"poison", SHARD)
        await put_aside(system, 1)

    async def is_served() -> bool:
        return await pay(system) == 1

    await until(is_served)
    before = await transfers(system)
    body = KEYS.sign(Purpose.BATCH, batch(credit("anna")))

    async def is_posted() -> bool:
        with suppress(DeliveryError):  # as long as there is no such queue
            await vandal.channel.basic_publish(
                body, routing_key=LATE_QUEUE, properties=SIGNED, mandatory=True
            )
        return await transfers(system) == before + 1

    await until(is_posted)


async def test_gateway_whose_reply_queue_is_deleted_makes_another(
    servers: Servers, system: System, stranger: Stranger
) -> None:
    assert await pay(system) == 1
    _, answered = await stranger.overheard_batch()
    vhost = system.environment["CREDITS_BROKER__URL"].rpartition("/")[2]
    command = ("rabbitmqctl", "--quiet", "delete_queue", "-p", vhost, answered.reply_to)
    await asyncio.to_thread(servers.rabbitmq.run, *command)
    await stranger.forget()

    async def is_served() -> bool:
        return await pay(system) == 1

    await until(is_served)
    _, later = await stranger.overheard_batch()
    assert later.reply_to != answered.reply_to
