"""A lost broker is logged at once, with words, and in one line a second however often it is tried."""

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from aio_pika.abc import AbstractConnection
from structlog.testing import capture_logs

from shared.broker.connection import keep_connected
from shared.broker.losses import LINE_EVERY_SECONDS, LossLog, reason_of
from shared.settings import BrokerSettings

Lines = Sequence[MutableMapping[str, Any]]


def test_a_line_stands_for_a_second() -> None:
    assert LINE_EVERY_SECONDS >= 1.0


@pytest.mark.parametrize("error", [TimeoutError(), StopAsyncIteration(), RuntimeError(), OSError(1, "no")])
def test_every_loss_has_a_reason(error: Exception) -> None:
    assert reason_of(error)


async def test_first_loss_is_a_line_and_the_others_of_a_second_are_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.broker.losses.LINE_EVERY_SECONDS", 0.01)
    with capture_logs() as lines:
        losses = LossLog()
        losses.record("a:5672", TimeoutError())
        assert [(line["node"], line["reason"]) for line in lines] == [("a:5672", "no answer in time")]
        for node in ("b:5672", "c:5672", "b:5672"):
            losses.record(node, OSError("refused"))
        assert len(lines) == 1
        async with asyncio.timeout(10):
            while len(lines) < 2:
                await asyncio.sleep(0.01)
    assert (lines[1]["node"], lines[1]["times"], lines[1]["reason"]) == ("c:5672, b:5672", 3, "refused")


async def test_what_was_not_logged_is_when_the_process_ends() -> None:
    with capture_logs() as lines:
        losses = LossLog()
        for _ in range(3):
            losses.record("a:5672", TimeoutError())
        losses.flush()
        losses.flush()
    assert [line.get("times", 1) for line in lines] == [1, 2]


async def test_nodes_that_are_all_away_are_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.broker.losses.LINE_EVERY_SECONDS", 3600)
    nodes, stop, tried = ("a:5672", "b:5672", "c:5672"), asyncio.Event(), list[str]()
    settings = BrokerSettings(url=",".join(f"amqp://{node}/" for node in nodes))

    async def refuse(_settings: BrokerSettings, url: str) -> AbstractConnection:
        tried.append(url)
        if len(tried) == 2 * len(nodes):
            stop.set()
        raise ConnectionRefusedError

    async def serve(_connection: AbstractConnection) -> None:
        raise AssertionError("no node lets us in")

    monkeypatch.setattr("shared.broker.connection.connect", refuse)
    with capture_logs() as lines:
        await keep_connected(settings, serve, stop)
    assert [line["event"] for line in lines] == ["broker lost"] * 2
    assert [line.get("times", 1) for line in lines] == [1, 2 * len(nodes) - 1]
    assert set(lines[1]["node"].split(", ")) == set(nodes)
    assert all(line["reason"] == "ConnectionRefusedError()" for line in lines)
