"""A stranger with the broker's password: can stop what he likes, and credits nobody, tells nobody a lie."""

import asyncio
import json
import signal
from typing import Any

import pytest

from shared.broker.bodies import HEAD_BYTES
from shared.broker.topology import DEAD_QUEUE, LATE_QUEUE, UNSIGNED_QUEUE, shard_queue
from shared.message_keys import MessageKeys, Purpose
from shared.outcome import Balance, Outcome, OutcomeCode, Receipt
from shared.queries import FindPlayer
from shared.wire import (
    BATCH_OPERATIONS_MAX,
    MESSAGE_BYTES_MAX,
    STALE_SECONDS,
    V1,
    Answer,
    Batch,
    BatchReply,
    Replies,
    encode_batch,
    encode_replies,
    unix_ms,
)
from tests.support.attacked import (
    SHARD,
    batch,
    counted,
    credit,
    dropped,
    pay,
    pay_with_retries,
    queued,
    transfers,
    until,
)
from tests.support.stranger import GARBAGE, Stranger, put_aside
from tests.support.system import KEYS, Process, System

THIEF = MessageKeys([b"a key that the thief has made up himself"])
FLOOD_MESSAGES = 3_000
BITS = (0, 8 * 31, 8 * 32 + 3, 8 * 60)


def flipped(body: bytes, bit: int) -> bytes:
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def test_forged_batch_credits_nobody_and_is_answered_to_nobody(system: System, stranger: Stranger) -> None:
    assert await pay(system) == 1
    captured, _ = await stranger.overheard_batch()
    await stranger.forget()
    before = await transfers(system)
    forged = batch(credit(), reply_to=stranger.own_queue)
    bodies = [forged, THIEF.sign(Purpose.BATCH, forged), b"", *(flipped(captured, bit) for bit in BITS)]
    for queue in (SHARD, LATE_QUEUE):
        for body in bodies:
            await stranger.publish(body, queue, reply_to=stranger.own_queue)
        await stranger.publish(forged, queue, message_type=V1, reply_to=stranger.own_queue)
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


async def test_batch_that_was_captured_long_ago_is_left_to_a_person(system: System, stranger: Stranger) -> None:
    """What was refused in its time, as for an unknown player, is not paid because somebody sends it again."""
    before, long_ago = await transfers(system), unix_ms() - 1_000 * (STALE_SECONDS + 60)
    body = KEYS.sign(Purpose.BATCH, encode_batch(Batch(1, long_ago, [credit()], reply_to="amq.gen-gone")))
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
        lies = Outcome(OutcomeCode.POSTED, Receipt("forged", "EUR", 1050, 0, 1050, 0))
        payload = encode_replies(Replies(waiting.reply_to, "worker", [BatchReply(waiting.number, [lies])]))
        forged = [
            payload,
            THIEF.sign(Purpose.REPLY, payload),
            KEYS.sign(Purpose.BATCH, payload),
            captured,
            b"",
        ]
        elsewhere = encode_replies(Replies("amq.gen-other", "worker", [BatchReply(waiting.number, [lies])]))
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
        answers: list[Answer] = [Balance("mallory", "EUR", 0, 0)] * len(waiting)
        payload = encode_replies(Replies(waiting.reply_to, "worker", [BatchReply(waiting.number, answers)]))
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
    lies = BatchReply(answered.number, [Outcome(OutcomeCode.UNKNOWN_PLAYER)])
    captured = KEYS.sign(Purpose.REPLY, encode_replies(Replies(answered.reply_to, "worker", [lies])))
    await stranger.publish_all([captured] * 20, answered.reply_to)

    async def are_dropped() -> bool:
        return (await dropped(system)).get("too late", 0) == before + 20

    await until(are_dropped)
    assert await pay(system, 5) == 5


@pytest.mark.parametrize("signed", [False, True])
async def test_message_as_large_as_the_broker_takes_stops_no_honest_win(
    system: System,
    stranger: Stranger,
    signed: bool,  # noqa: FBT001
) -> None:
    before = await transfers(system)
    number = 160_000  # credits; RabbitMQ 4 takes no message of more than 16 MiB
    payload = encode_batch(Batch(1, unix_ms() + 60_000, [credit()] * number))
    body = KEYS.sign(Purpose.BATCH, payload) if signed else payload
    await stranger.publish(body, SHARD)
    assert await pay_with_retries(system, 20) == 20
    (aside,) = await put_aside(system, 1)
    assert aside.body == body[:HEAD_BYTES]
    assert aside.reason == f"{len(body)} bytes, and {MESSAGE_BYTES_MAX} are the most"
    assert aside.queue == UNSIGNED_QUEUE
    assert await transfers(system) == before + 20


async def test_batch_of_more_questions_than_any_gateway_asks_is_not_worked_on(
    system: System, stranger: Stranger
) -> None:
    many = Batch(1, unix_ms(), [credit()], [FindPlayer("anna")] * BATCH_OPERATIONS_MAX)
    await stranger.publish(KEYS.sign(Purpose.BATCH, encode_batch(many)), SHARD)
    (aside,) = await put_aside(system, 1)
    assert f"{BATCH_OPERATIONS_MAX + 1} questions" in aside.reason
    assert aside.queue == DEAD_QUEUE


async def test_questions_of_long_ago_are_kept_by_nobody(system: System, stranger: Stranger) -> None:
    """Whoever repeats captured questions about balances fills no queue: no money is lost with them."""
    before, asked = await counted(system, "credits_worker_dropped_messages_total"), 20
    long_ago = unix_ms() - 1_000 * (STALE_SECONDS + 60)
    body = KEYS.sign(Purpose.BATCH, encode_batch(Batch(1, long_ago, [], [FindPlayer("anna")], "amq.gen-gone")))
    await stranger.publish_all([body] * asked, SHARD)

    async def are_dropped() -> bool:
        return await counted(system, "credits_worker_dropped_messages_total") == before + asked

    await until(are_dropped)
    assert await queued(stranger, DEAD_QUEUE) == await queued(stranger, UNSIGNED_QUEUE) == 0


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


async def test_flood_of_poison_keeps_no_honest_win_waiting_for_long(system: System, stranger: Stranger) -> None:
    worker = system.workers[0]
    await worker.end()  # which logs what poison there was before
    before = len(logged(worker, "poison message"))
    worker.start()
    await system.until_ready()
    flood = asyncio.create_task(stranger.publish_all([b"poison"] * FLOOD_MESSAGES, SHARD))
    assert await pay_with_retries(system, 40) == 40
    await flood
    assert await pay(system, 40) == 40

    async def is_over() -> bool:
        return await queued(stranger, UNSIGNED_QUEUE) == FLOOD_MESSAGES

    await until(is_over)
    await worker.end()
    lines = logged(worker, "poison message")[before:]
    assert sum(line["times"] for line in lines) == FLOOD_MESSAGES
    assert len(lines) < FLOOD_MESSAGES / 10
    worker.start()
    await system.until_ready()
    await stranger.channel.queue_purge(UNSIGNED_QUEUE)


async def test_every_dropped_reply_is_logged_though_the_gateway_ends(system: System, stranger: Stranger) -> None:
    assert await pay(system) == 1
    _, answered = await stranger.overheard_batch()
    before = (await dropped(system)).get("unsigned", 0)
    for _ in range(20):
        await stranger.publish(b"forged", answered.reply_to)

    async def are_dropped() -> bool:
        return (await dropped(system))["unsigned"] == before + 20

    await until(are_dropped)
    in_all = sum((await dropped(system)).values())
    await system.gateway.end()
    assert sum(line["times"] for line in logged(system.gateway, "reply dropped")) == in_all
    system.gateway.start()
    await system.until_ready()


def logged(process: Process, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]
