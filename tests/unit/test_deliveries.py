"""What a worker was given: how long somebody may wait for it is counted by no clock that can be set."""

import time
from math import inf
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.wire import MESSAGE_BYTES_MAX, is_fit
from worker.messaging.deliveries import LIVE_BYTES_MAX, DeliveryBuffer


def message(expiration: str | None) -> DeliveredMessage:
    header = ContentHeader(properties=Basic.Properties(expiration=expiration))
    channel: Any = None
    return DeliveredMessage(Basic.Deliver(), header, b"", channel)


@pytest.mark.parametrize("set_to", [0.0, 4_000_000_000.0])
async def test_message_is_waited_for_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch, set_to: float) -> None:
    monkeypatch.setattr(time, "time", lambda: set_to)
    inbox = DeliveryBuffer()
    before = time.monotonic()
    await inbox.on_delivery(inbox.live)(message("2500"))
    after = time.monotonic()
    (arrival,) = inbox.live
    assert before + 2.5 <= arrival.expires_at <= after + 2.5
    assert inbox.has_work()
    assert inbox.changed.is_set()


@pytest.mark.parametrize("expiration", ["soon", "-1", "1.5", "nan", "inf", "1e308", "٣", "9" * 200, "\ufffd"])
async def test_nobody_waits_for_a_message_whose_expiration_is_no_time(expiration: str) -> None:
    """It goes the way of what has expired; before, it stayed with the worker that it was delivered to."""
    inbox = DeliveryBuffer()
    await inbox.on_delivery(inbox.live)(message(expiration))
    assert inbox.live[0].expires_at <= time.monotonic()


async def test_message_that_says_nothing_is_waited_for_for_ever() -> None:
    inbox = DeliveryBuffer()
    await inbox.on_delivery(inbox.late)(message(None))
    assert inbox.late[0].expires_at == inf


async def test_live_messages_wait_within_a_bound_of_bytes() -> None:
    inbox = DeliveryBuffer()
    large = LIVE_BYTES_MAX // MESSAGE_BYTES_MAX
    assert all(inbox.wants_live(MESSAGE_BYTES_MAX) for _ in range(large))
    assert not inbox.wants_live(1)
    channel: Any = None
    whole = ContentHeader(body_size=MESSAGE_BYTES_MAX)
    await inbox.on_delivery(inbox.live)(DeliveredMessage(Basic.Deliver(), whole, bytes(MESSAGE_BYTES_MAX), channel))
    await inbox.on_delivery(inbox.live)(DeliveredMessage(Basic.Deliver(), whole, b"cut", channel))
    inbox.next_live()
    assert inbox.wants_live(MESSAGE_BYTES_MAX)
    inbox.next_live()
    assert not inbox.wants_live(1), "what was cut has never counted"


@pytest.mark.parametrize("size", [MESSAGE_BYTES_MAX + 1, 1 << 40])
def test_message_larger_than_any_of_ours_is_never_gathered(size: int) -> None:
    assert not DeliveryBuffer().wants_live(size)
    assert not is_fit(size)
    assert is_fit(MESSAGE_BYTES_MAX)
