"""What is told of sizes is what was measured, by turns, and says where it can't be measured."""

from itertools import chain

import msgspec
import pytest

from shared.settings import Settings
from tests.bench.closed_loop import CLIENT, Run
from tests.bench.points import COMMIT, Point, Sizes, medians
from tests.bench.sizing import SETTINGS, useful_workers
from tests.bench.sizing_report import markdown, points_table
from tests.bench.wrk import VoidRunError, parse

TOLD = (
    '{"completed":900,"seconds":3,"sent":1000,"exhausted":0,"unpaid":300,"bad_statuses":150,"failed":0,'
    '"p50_ms":1,"p90_ms":2,"p99_ms":3,"p999_ms":4,"max_ms":5}'
)


def point(value: int, per_second: float, batch: float = 10, workers: int = 1) -> Point:
    cpu_us = {"gateway": 50.0, "worker": per_second / 10, "worker 2": 5.0, "PostgreSQL": 20.0, CLIENT: 7.0}
    return Point(COMMIT, value, workers, Run("new wins", 200, per_second, 1, 2, 3, 4, cpu_us), batch)


def test_one_slow_turn_does_not_make_the_number() -> None:
    turns = [[point(0, 1_000, 10), point(5, 900, 20)] for _ in range(2)]
    told = medians([*chain(*turns), point(0, 10, 1), point(5, 9_999, 90)])
    assert [(p.value, p.run.per_second, p.credits_per_batch) for p in told] == [(0, 1_000, 10), (5, 900, 20)]
    assert told[0].run.cpu_us["worker"] == 100


def test_numbers_of_workers_are_not_mixed() -> None:
    told = medians([point(5, 1_000, workers=1), point(5, 2_000, workers=2)])
    assert [(p.workers, p.run.per_second) for p in told] == [(1, 1_000), (2, 2_000)]


def test_what_all_workers_spend_is_one_number() -> None:
    told = point(0, 1_000, workers=2)
    assert told.cpu_us == {"gateway": 50, "worker": 105, "PostgreSQL": 20, CLIENT: 7}
    assert sum(told.cpu_us.values()) - told.cpu_us[CLIENT] == told.run.all_cpu_us
    assert told.batches_per_second == 100


@pytest.mark.parametrize(("version", "workers"), [("3.10.8", 1), ("4.0.5", 4), ("10.1", 4)])
def test_workers_are_compared_only_where_they_share_the_work(version: str, workers: int) -> None:
    assert max(useful_workers(version)) == workers


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_each_setting_is_known_and_compared_with_its_default(
    setting: tuple[str, str, int, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, variable, default, values = setting[:4]
    assert default in values
    monkeypatch.setenv("CREDITS_CONFIG", "")
    for value in values:
        monkeypatch.setenv(variable, str(value))
        table, name = variable.removeprefix("CREDITS_").lower().split("__")
        assert getattr(getattr(Settings(), table), name) == value


def test_refusals_are_counted_where_they_may_be_and_void_elsewhere() -> None:
    assert parse(TOLD, may_be_unpaid=True).unpaid == 300
    with pytest.raises(VoidRunError, match="150 replies"):
        parse(TOLD)


def test_refused_credits_stand_beside_those_paid() -> None:
    run = msgspec.structs.replace(point(16, 1_500).run, refused_per_second=4_321.0)
    assert "| 16 |       1 |         200 |     1,500 |     4,321 |" in points_table(
        [Point("[gateway] in_flight_max", 16, 1, run, 3.0)]
    )


def test_report_says_why_there_is_one_worker_only() -> None:
    told = {version: markdown(Sizes({"RabbitMQ": version}, {}, [point(0, 1_000)])) for version in ("3.10.8", "4.1")}
    assert "one worker is active on all shards" in told["3.10.8"]
    assert "one worker is active" not in told["4.1"]
