"""A node of a Redis Cluster in the cache's place: it is named, once, and the wins go on without a cache."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from tests.support.caches import ONE, TWO, cache_on, put, transfer
from tests.support.servers.sentinels import running_cluster_node
from worker.ledger.cache import circuit

pytestmark = pytest.mark.servers

CALLS = 50


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with running_cluster_node() as url:
        yield url


async def test_node_of_a_cluster_is_named_before_it_is_needed(node: str) -> None:
    counted: list[str] = []
    with capture_logs() as logged:
        async with cache_on(node, count=counted.append), asyncio.timeout(30):
            while not logged:
                await asyncio.sleep(0.01)
    (line,) = logged
    assert (line["event"], line["log_level"], line["error"]) == ("cache refuses us", "error", "RedisCluster")
    assert line["reason"] == "it is a node of a Redis Cluster; the cache needs one Redis, or sentinels"
    assert counted == ["failed", "refused"]


async def test_node_of_a_cluster_that_does_some_calls_is_named_once(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 0.0)
    with capture_logs() as logged:
        async with cache_on(node, count=counted.append) as cache:
            for _ in range(CALLS):
                await put(cache, {ONE: transfer()})
                assert await cache.get([ONE])
                assert await cache.get([ONE, TWO]) == {}
    assert [line["event"] for line in logged] == ["cache refuses us"]
    assert counted.count("refused") == counted.count("failed") >= CALLS
