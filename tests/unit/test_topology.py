"""Shards: all of a player's credits meet in one queue, whatever process or release sends them."""

from collections import Counter

import pytest

from shared.broker.topology import consumer_priority, shard_of


@pytest.mark.parametrize(
    ("player_id", "of_8", "of_256"),
    [("", 0, 0), ("1", 7, 183), ("anna", 7, 183), ("player-1", 3, 243), ("игрок", 5, 141)],
)
def test_player_stays_on_the_same_shard_in_every_release(player_id: str, of_8: int, of_256: int) -> None:
    assert (shard_of(player_id, 1), shard_of(player_id, 8), shard_of(player_id, 256)) == (0, of_8, of_256)


def test_players_spread_over_all_shards() -> None:
    players = Counter(shard_of(f"player{n}", 8) for n in range(8_000))
    assert set(players) == set(range(8))
    assert min(players.values()) > 800


def test_shards_spread_over_workers() -> None:
    workers = ("worker-1", "worker-2", "worker-3")
    shards = Counter(max(workers, key=lambda w: consumer_priority(w, shard)) for shard in range(256))
    assert min(shards[worker] for worker in workers) > 40
