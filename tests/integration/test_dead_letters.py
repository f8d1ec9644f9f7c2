"""Poison: it fails nobody else, is kept with its reason, and can be listed, looked at and sent back."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import aio_pika
import msgspec
import pytest
from aiormq.exceptions import DeliveryError

from shared.broker import topology
from shared.broker.topology import DEAD_QUEUE, UNSIGNED_QUEUE, shard_of, shard_queue
from shared.message_keys import MessageKeys, Purpose
from shared.operations import Credit
from shared.settings import BrokerSettings
from shared.wire import BATCH_OPERATIONS_MAX, V1, V2, V3, Batch, encode_batch, unix_ms
from tests.support.commands import run
from tests.support.credits import win
from tests.support.servers import Servers, fresh_vhost
from tests.support.system import BROKER_KEY, KEYS, System, running_system
from worker.cli.exit_codes import ExitCode
from worker.messaging.dead_letters import list_all

LOOKS = 25
"""More often than RabbitMQ 4 lets a message be returned to a queue."""

Publish = Callable[..., Awaitable[None]]


@pytest.fixture
async def system(servers: Servers) -> AsyncIterator[System]:
    async with running_system(servers, workers=1) as started:
        await started.add_players(["anna", "ben"])
        yield started


@pytest.fixture
async def publish(system: System) -> AsyncIterator[Publish]:
    async with (
        await aio_pika.connect(system.environment["CREDITS_BROKER__URL"]) as connection,
        connection.channel() as channel,
    ):

        async def publish_to(queue: str, body: bytes, message_type: str = V2, **more: Any) -> None:
            message = aio_pika.Message(body, type=message_type, delivery_mode=2, **more)
            await channel.default_exchange.publish(message, routing_key=queue)

        yield publish_to


def settings(system: System) -> BrokerSettings:
    return BrokerSettings(url=system.environment["CREDITS_BROKER__URL"], keys=(BROKER_KEY,))


async def until_dead(system: System, number: int) -> list[dict[str, Any]]:
    """Return what `dead list` and `dead list --unsigned` say when it is so much."""
    for _ in range(100):
        if len(await list_all(settings(system))) == number:
            break
        await asyncio.sleep(0.1)
    listed = [await system.command("dead", "list", "--json", *more) for more in ((), ("--unsigned",))]
    found = {m["id"]: m for one in listed for m in json.loads(one.stdout)}
    assert len(found) == number, listed
    return list(found.values())


async def until_balances(system: System, balances: dict[str, int]) -> None:
    for _ in range(100):
        if await system.balances() == balances:
            break
        await asyncio.sleep(0.1)
    assert await system.balances() == balances


def batch(*credits_: Credit) -> bytes:
    return KEYS.sign(Purpose.BATCH, unsigned(*credits_))


def unsigned(*credits_: Credit) -> bytes:
    return encode_batch(Batch(1, unix_ms(), list(credits_)))


UNPOSTABLE = win("unpostable", round_id="\x00")
SHARD = shard_queue(shard_of("anna", 16))


async def test_poison_is_kept_and_fails_nobody_else(system: System, publish: Publish) -> None:
    await publish(SHARD, b"garbage")
    await publish(SHARD, batch(win("of another version")), "credits.v0")
    await publish(SHARD, batch(win("good"), UNPOSTABLE, win("as good", player_id="ben")))
    found = {message["reason"].split(":")[0]: message for message in await until_dead(system, 3)}
    assert set(found) == {
        "unsigned",
        "message type 'credits.v0' is neither 'credits.v2' nor 'operations.v3'",
        "unpostable",
    }
    assert [reason for reason, message in found.items() if message["authentic"]] == ["unpostable"]
    assert all(message["put_aside_at"] for message in found.values())
    assert await system.balances() == {"anna": 1050, "ben": 1050}

    for _ in range(LOOKS):
        assert len(await list_all(settings(system))) == 3
    listed = await system.command("dead", "list")
    assert "10.50 EUR to anna (klas unpostable)" in listed.stdout
    assert listed.stderr == "2 more that nobody has signed are put aside: `dead list --unsigned`\n"
    assert "7 bytes that can't be decoded" not in listed.stdout
    unsigned_text = (await system.command("dead", "list", "--unsigned")).stdout
    assert "7 bytes that can't be decoded" in unsigned_text
    assert "unpostable" not in unsigned_text

    shown = await system.command("dead", "show", found["unpostable"]["id"])
    assert "10.50 EUR to anna (klas unpostable)  not paid" in shown.stdout
    shown = await system.command("dead", "show", found["unsigned"]["id"])
    assert b"garbage".hex(" ") in shown.stdout
    refused = await system.command("dead", "send-back", found["unsigned"]["id"])
    assert (refused.returncode, refused.stdout) == (ExitCode.NO, "nothing was sent back\n")
    assert refused.stderr == f"error: not sent back: {found['unsigned']['id']} (can't be decoded)\n"

    sent = await system.command("dead", "send-back", "--all", "--json")
    assert [message["reason"] for message in json.loads(sent.stdout)] == ["unpostable"]
    assert len(await until_dead(system, 3)) == 3  # it has come back
    assert await system.balances() == {"anna": 1050, "ben": 1050}


async def test_operation_of_a_later_version_is_named_and_neither_sent_back_nor_dropped_unasked(
    system: System, publish: Publish
) -> None:
    """It may be owed: a win of a kind that this version can't read is one, too."""
    later = [win("posted"), ["debit", "klas", "bet-1", "anna", "EUR", 5], win("good", player_id="ben")]
    mixed = KEYS.sign(Purpose.BATCH, msgspec.msgpack.encode((1, unix_ms(), later, [], "")), V3)
    await publish(SHARD, mixed, V3)
    (kept,) = await until_dead(system, 1)
    await until_balances(system, {"anna": 1050, "ben": 1050})
    assert (kept["credits"], kept["unknown_operations"], kept["reason"]) == ([], 1, "unpostable")
    assert "1 operation that this version can't read" in (await system.command("dead", "list")).stdout
    assert "1 operation that this version can't read" in (await system.command("dead", "show", kept["id"])).stdout

    await publish(DEAD_QUEUE, mixed, V3, headers={"reason": "stale"})
    (both,) = [letter for letter in await until_dead(system, 2) if letter["credits"]]
    for command in ("send-back", "drop"):
        refused = await system.command("dead", command, both["id"], kept["id"])
        assert refused.returncode == ExitCode.NO
    assert (await system.command("dead", "send-back", "--all")).returncode == ExitCode.OK
    assert len(await until_dead(system, 2)) == 2, "nothing was lost"
    assert (await system.command("dead", "drop", both["id"], kept["id"], "--unpaid")).returncode == ExitCode.OK
    assert await until_dead(system, 0) == []
    entries = json.loads((await system.command("audit", "list", "--action", "dead.drop", "--json")).stdout)["entries"]
    assert {entry["detail"]["unknown_operations"] for entry in entries} == {1}


async def test_what_was_mended_is_sent_back_and_paid_once(system: System, publish: Publish) -> None:
    await publish(DEAD_QUEUE, batch(win("mended")), headers={"reason": "a defect of ours"})
    await publish(DEAD_QUEUE, batch(win("paid meanwhile")), headers={"reason": "a defect of ours"})
    await publish(SHARD, batch(win("paid meanwhile")))
    found = await until_dead(system, 2)
    sent = await system.command("dead", "send-back", *(message["id"] for message in found))
    assert sent.stdout.count("sent back: ") == 2
    await until_balances(system, {"anna": 2100, "ben": 0})
    assert await until_dead(system, 0) == []
    assert (await system.command("dead", "list")).stdout == "nothing is put aside\n"
    again = await system.command("dead", "show", found[0]["id"])
    assert again.returncode == ExitCode.NO


async def test_what_nobody_signed_is_sent_back_only_by_name_and_with_a_word_for_it(
    system: System, publish: Publish
) -> None:
    """It is forged, or waited through an upgrade from a version that did not sign."""
    await publish(SHARD, unsigned(win("before the upgrade")), V1)
    await publish(SHARD, MessageKeys([b"a thief's" * 9]).sign(Purpose.BATCH, unsigned(win("forged"))))
    await publish(DEAD_QUEUE, batch(win("ours", player_id="ben")), headers={"reason": "unpostable"})
    found = {m["credits"][0][2]: m for m in await until_dead(system, 3)}
    assert "earlier version" in found["before the upgrade"]["reason"]
    assert "not signed with any of [broker] keys" in found["forged"]["reason"]
    forged, before = found["forged"]["id"], found["before the upgrade"]["id"]
    assert "NOT SIGNED" in (await system.command("dead", "show", forged)).stdout
    listed = [(await system.command("dead", "list", *more)).stdout for more in ((), ("--unsigned",))]
    assert [text.count("NOT SIGNED") for text in listed] == [0, 2]
    assert [text.count("authentic") for text in listed] == [1, 0]

    together = await system.command("dead", "send-back", "--all", "--unsigned")
    assert together.returncode == ExitCode.USAGE
    sent = await system.command("dead", "send-back", "--all")
    assert (sent.returncode, sent.stdout) == (0, f"sent back: {found['ours']['id']}, 1 credit\n")
    refused = await system.command("dead", "send-back", forged, before)
    assert (refused.returncode, refused.stdout) == (ExitCode.NO, "nothing was sent back\n")
    assert refused.stderr.count("(not signed: needs --unsigned)") == 2
    sent = await system.command("dead", "send-back", before, "--unsigned")
    assert (sent.returncode, sent.stdout) == (0, f"sent back: {before}, 1 credit\n")
    await until_balances(system, {"anna": 1050, "ben": 1050})
    assert [message["id"] for message in await until_dead(system, 1)] == [forged]


async def test_what_nobody_signed_is_found_where_earlier_versions_left_it(system: System, publish: Publish) -> None:
    await publish(DEAD_QUEUE, unsigned(win("long ago")), V1, headers={"reason": "unsigned"})
    await publish(SHARD, unsigned(win("of today")), V1)
    found = {m["credits"][0][2]: m for m in await until_dead(system, 2)}
    assert {name: m["queue"] for name, m in found.items()} == {
        "long ago": DEAD_QUEUE,
        "of today": UNSIGNED_QUEUE,
    }
    ids = [message["id"] for message in found.values()]
    listed = json.loads((await system.command("dead", "list", "--unsigned", "--json")).stdout)
    assert sorted(message["id"] for message in listed) == sorted(ids)
    sent = await system.command("dead", "send-back", *ids, "--unsigned")
    assert (sent.returncode, sent.stdout.count("sent back: ")) == (0, 2)
    await until_balances(system, {"anna": 2100, "ben": 0})


async def test_what_is_named_in_vain_is_told_why(system: System, publish: Publish) -> None:
    """A question with no win in it is neither undecodable nor in want of a word for it."""
    await publish(UNSIGNED_QUEUE, unsigned(), V1)
    ((empty,), nobodys) = ([m["id"] for m in await until_dead(system, 1)], "0" * 32)
    refused = await system.command("dead", "send-back", empty, nobodys, "--unsigned")
    told = sorted([f"{empty} (holds no credit)", f"{nobodys} (not put aside)"])
    assert (refused.returncode, refused.stderr) == (ExitCode.NO, f"error: not sent back: {', '.join(told)}\n")
    refused = await system.command("dead", "drop", nobodys)
    assert refused.stderr == f"error: not dropped: {nobodys} (not put aside)\n"


async def test_more_than_a_batch_is_sent_back_in_several(system: System, publish: Publish) -> None:
    """So many came from no gateway of this version; whoever vouches for them gets them paid all the same."""
    many = [win(f"{n}", details={"note": "n" * 1_000}) for n in range(BATCH_OPERATIONS_MAX + 200)]
    await publish(DEAD_QUEUE, unsigned(*many), V1)
    (message,) = await until_dead(system, 1)
    await system.command("dead", "send-back", message["id"], "--unsigned")
    await until_balances(system, {"anna": 1050 * len(many), "ben": 0})
    assert await until_dead(system, 0) == []


async def test_only_what_is_paid_is_dropped_unless_told_otherwise(system: System, publish: Publish) -> None:
    """What can't be decoded may be a win, of a version to come or cut short: nobody knows that it is paid."""
    await publish(SHARD, b"garbage")
    await publish(SHARD, batch(UNPOSTABLE, win("paid")))
    await publish(DEAD_QUEUE, batch(win("paid")), headers={"reason": "a defect of ours"})
    await publish(DEAD_QUEUE, b"other garbage", headers={"reason": "not ours"})
    found = {message["reason"].split(":")[0]: message["id"] for message in await until_dead(system, 4)}
    owed = [found["unsigned"], found["unpostable"]]

    dropped = await system.command("dead", "drop", *owed, found["a defect of ours"])
    assert dropped.returncode == ExitCode.NO
    assert all(f"{name} (not known to be paid: needs --unpaid)" in dropped.stderr for name in owed)
    assert found["a defect of ours"] not in dropped.stderr
    assert "10.50 EUR to anna (klas paid)  paid" in dropped.stdout
    left = {message["id"] for message in await until_dead(system, 3)}
    assert left == {*owed, found["not ours"]}

    dropped = await system.command("dead", "drop", "--unpaid", *owed)
    assert (dropped.returncode, dropped.stderr) == (0, "")
    assert b"garbage".hex(" ") in dropped.stdout
    assert "10.50 EUR to anna (klas unpostable)  not paid" in dropped.stdout
    assert [message["id"] for message in await until_dead(system, 1)] == [found["not ours"]]
    again = await system.command("dead", "drop", owed[0])
    assert (again.returncode, again.stdout) == (ExitCode.NO, "nothing was dropped\n")
    assert await system.balances() == {"anna": 1050, "ben": 0}


async def audited(system: System) -> list[tuple[str, str, str, list[str]]]:
    """Return what the audit log has of `dead`, oldest first."""
    listed = json.loads((await system.command("audit", "list", "--json")).stdout)["entries"]
    return [
        (e["action"], e["subject"], e["outcome"], [c["provider_tx_id"] for c in e["detail"]["credits"]])
        for e in reversed(listed)
        if e["action"].startswith("dead.")
    ]


async def test_what_a_person_does_to_messages_is_written_down_before_and_after(
    system: System, publish: Publish
) -> None:
    await publish(DEAD_QUEUE, batch(*(win(f"w-{n}") for n in range(10))), headers={"reason": "of ours"})
    await publish(DEAD_QUEUE, b"garbage", headers={"reason": "not ours"})
    of_ours, garbage = (
        f"message:{m['id']}" for m in sorted(await until_dead(system, 2), key=lambda m: -len(m["credits"]))
    )
    await system.command("dead", "send-back", "--all")
    parts = [[f"w-{n}" for n in range(8)], ["w-8", "w-9"]]
    sent_back = [("dead.send_back", of_ours, end, part) for end in ("begun", "done") for part in parts]
    assert await audited(system) == sent_back
    refused = await system.command("dead", "drop", garbage.removeprefix("message:"))
    assert refused.returncode == ExitCode.NO
    assert await audited(system) == sent_back, "nothing was begun"
    await system.command("dead", "drop", "--unpaid", garbage.removeprefix("message:"))
    assert (await audited(system))[len(sent_back) :] == [
        ("dead.drop", garbage, "begun", []),
        ("dead.drop", garbage, "done", []),
    ]


async def test_message_stays_where_nothing_can_be_written_down(system: System, publish: Publish) -> None:
    await publish(DEAD_QUEUE, batch(win("w")), headers={"reason": "of ours"})
    ((message),) = await until_dead(system, 1)
    nowhere = "postgresql+asyncpg://nobody@127.0.0.1:9/none"
    url = system.environment["CREDITS_BROKER__URL"]
    keys = system.environment["CREDITS_BROKER__KEYS"]
    broker = {"CREDITS_BROKER__URL": url, "CREDITS_BROKER__KEYS": keys}
    failed = await run(nowhere, "dead", "send-back", message["id"], **broker)
    failed.error(ExitCode.DATABASE)
    assert len(await until_dead(system, 1)) == 1


async def test_commands_say_what_is_wrong_in_one_line(system: System) -> None:
    url = system.environment["CREDITS_LEDGER__DATABASE_URL"]
    nowhere = {"CREDITS_BROKER__URL": "amqp://127.0.0.1:9/"}
    unreachable = await run(
        url, "dead", "list", **nowhere, CREDITS_BROKER__KEYS=system.environment["CREDITS_BROKER__KEYS"]
    )
    assert "no answer from the broker" in unreachable.error(ExitCode.BROKER)
    assert "no broker" in (await run(url, "dead", "list")).error(ExitCode.SETTINGS)
    assert "[broker] keys" in (await run(url, "dead", "list", **nowhere)).error(ExitCode.SETTINGS)
    neither = await run(url, "dead", "send-back", **nowhere)
    assert neither.code == ExitCode.USAGE


async def test_looks_lose_and_repeat_nothing_where_the_queue_of_what_nobody_signed_is_full(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RabbitMQ 4 counts, which throws away what was returned twenty times; 3.10 is told to."""
    few = {**topology._UNSIGNED_ARGUMENTS, "x-max-length": 60, "x-delivery-limit": 20}  # noqa: SLF001
    monkeypatch.setattr(topology, "_UNSIGNED_ARGUMENTS", few)
    broker = BrokerSettings(url=await fresh_vhost(servers), keys=(BROKER_KEY,))
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        await topology.declare_topology(channel, broker.shards)
        published: set[bytes] = set()
        with suppress(DeliveryError):  # it is full
            for number in range(1_000):
                body = f"forged {number}".encode()
                await channel.default_exchange.publish(aio_pika.Message(body), routing_key=UNSIGNED_QUEUE)
                published.add(body)
        assert 60 <= len(published) < 1_000
        for _ in range(LOOKS):
            bodies = [message.body for message in await list_all(broker)]
            assert len(bodies) == len(published)
            assert set(bodies) == published
