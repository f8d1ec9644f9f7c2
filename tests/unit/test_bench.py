"""What a measurement says is what was measured."""

from itertools import islice

import pytest

from tests.bench import pgbench, traffic
from tests.bench.closed_loop import Run
from tests.bench.findings import Findings
from tests.bench.offered import OfferedRun
from tests.bench.open_loop import QUANTILES, due_times, quantiles
from tests.bench.processes import Memory
from tests.bench.report import table
from tests.bench.targets import TARGETS, Target, Verdict, judge_all, ratios
from tests.bench.wrk import ExhaustedError, VoidRunError, parse

OUTPUT_OF_WRK = """\
Running 2s test @ http://127.0.0.1:8080
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    65.52ms   23.11ms 261.31ms   81.35%
  1714 requests in 2.04s, 437.56KB read
Requests/sec:    839.83
{"completed":1714,"seconds":2.040885,"sent":1778,"exhausted":0,"unpaid":0,"bad_statuses":0,\
"failed":0,"p50_ms":64.975,"p90_ms":101.220,"p99_ms":185.766,"p999_ms":261.287,"max_ms":261.306}
"""
OUTPUT_OF_PGBENCH = """\
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 30
query mode: prepared
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 4 s
number of transactions actually processed: 13994
number of failed transactions: 0 (0.000%)
latency average = 4.563 ms
initial connection time = 41.862 ms
tps = 3506.123456 (without initial connection time)
"""


def run(per_second: float, p50_ms: float = 1) -> Run:
    return Run("a run", 64, per_second, p50_ms, 2, 3, 4, {})


def offered(share: float, p99_ms: float) -> OfferedRun:
    latency_ms = [p99_ms if quantile == 0.99 else 1.0 for quantile in QUANTILES]
    return OfferedRun(share, 100, 100, 400, 0, 0, latency_ms, {}, {}, 0.3)


FINDINGS = Findings(
    machine={},
    runs={
        "new at 1": [run(100, p50_ms=3), run(100, p50_ms=1), run(100, p50_ms=30)],
        "new at 64": [run(7), run(700), run(9_999)],
        "new at 200": [run(10), run(1_000), run(9_999)],
        "baseline at 1": [run(100, p50_ms=2), run(100, p50_ms=1), run(100, p50_ms=10)],
        "baseline": [run(1), run(225), run(9_999)],
        "pgbench": [run(1), run(800), run(9_999)],
        "uniform": [run(500)],
        "storm": [run(600)],
        "hot": [run(400)],
        "bulk": [run(2_000)],
    },
    offered=[offered(0.25, 5), offered(0.5, 20), offered(0.9, 50), offered(0.5, 10), offered(0.5, 99)],
    memory={"gateway": Memory(79, 90), "worker": Memory(121, 130)},
)


def test_what_wrk_counted_is_read() -> None:
    told = parse(OUTPUT_OF_WRK)
    assert (told.completed, told.sent, told.seconds, told.p99_ms) == (1714, 1778, 2.040885, 185.766)


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ('"bad_statuses":0', '"bad_statuses":1'),
        ('"failed":0', '"failed":1'),
        ('"completed":1714', '"completed":0'),
    ],
)
def test_run_with_a_failure_has_no_number(said: str, instead: str) -> None:
    with pytest.raises(VoidRunError):
        parse(OUTPUT_OF_WRK.replace(said, instead))


def test_run_that_came_to_the_end_of_its_requests_is_told_from_a_failed_one() -> None:
    with pytest.raises(ExhaustedError):
        parse(OUTPUT_OF_WRK.replace('"exhausted":0', '"exhausted":1'))


def test_what_pgbench_counted_is_read() -> None:
    assert pgbench.parse(OUTPUT_OF_PGBENCH) == (3506.123456, 13994)


def test_pgbench_with_failed_transactions_is_no_yardstick() -> None:
    with pytest.raises(VoidRunError):
        pgbench.parse(OUTPUT_OF_PGBENCH.replace("failed transactions: 0", "failed transactions: 3"))


def test_ratios_are_medians_of_those_of_each_round() -> None:
    assert ratios(FINDINGS) == pytest.approx(
        {
            "fresh_to_pgbench": 1.25,
            "fresh_to_baseline": 1_000 / 225,
            "storm_to_fresh": 1.2,
            "hot_to_uniform": 0.8,
            "bulk_to_single": 4,
            "at_64_to_200": 0.7,
            "p99_at_half_ms": 20,
            "idle_to_baseline": 1.5,
            "gateway_mib": 79,
            "worker_mib": 121,
        }
    )


def test_every_target_is_judged() -> None:
    verdicts = {row.target.name: row.verdict for row in judge_all(ratios(FINDINGS))}
    assert [verdicts[target.name] for target in TARGETS.values()] == [
        Verdict.FLOOR,
        Verdict.MISSED,
        Verdict.FLOOR,
        Verdict.FLOOR,
        Verdict.FLOOR,
        Verdict.FLOOR,
        Verdict.FLOOR,
        Verdict.FLOOR,
        Verdict.GOAL,
        Verdict.MISSED,
    ]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (None, Verdict.UNKNOWN),
        (0.99, Verdict.MISSED),
        (1.0, Verdict.FLOOR),
        (1.49, Verdict.FLOOR),
        (1.5, Verdict.GOAL),
    ],
)
def test_target_that_is_just_met_is_met(value: float | None, verdict: Verdict) -> None:
    assert Target("at least", 1.0, 1.5).judge(value) is verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(15.0, Verdict.GOAL), (15.1, Verdict.FLOOR), (30.0, Verdict.FLOOR), (30.1, Verdict.MISSED)],
)
def test_target_that_is_not_to_be_exceeded(value: float, verdict: Verdict) -> None:
    assert Target("at most", 30, 15, "ms", lower_is_better=True).judge(value) is verdict


def test_open_loop_offers_what_it_says_whoever_is_slow() -> None:
    due = due_times(10_000, per_second=500)
    assert len(due) == 10_000
    assert due == sorted(due)
    assert 0 <= due[0] < due[-1] <= 20
    by_second = [sum(second <= at < second + 1 for at in due) for second in range(20)]
    assert min(by_second) > 400
    assert max(by_second) < 600
    assert due == due_times(10_000, per_second=500), "two runs of one load are of the same wins"


def test_quantile_is_a_latency_that_was_measured() -> None:
    told = dict(zip(QUANTILES, quantiles([float(n) for n in range(1_000, 0, -1)]), strict=True))
    assert told[0.0] == 1
    assert told[0.5] == 500
    assert told[0.999] == 999
    assert told[1.0] == 1_000
    assert quantiles([7.0]) == [7.0] * len(QUANTILES)


def test_no_win_is_sent_twice_unless_it_is_meant_to() -> None:
    sent = list(islice(traffic.wins(), 4_000))
    assert len(set(sent)) == 4_000
    assert [request.split(b"/")[1].decode() for request in sent[: len(traffic.TURNS)]] == list(traffic.TURNS)


def test_storm_is_of_requests_sent_before_to_the_byte() -> None:
    begin = traffic.REPEAT_DISTANCE.stop
    sent = list(islice(traffic.mixed(0.9), 4 * begin))
    known = set(sent[:begin])
    repeats = 0
    for request in sent[begin:]:
        repeats += request in known
        known.add(request)
    assert len(set(sent[:begin])) == begin
    assert repeats == pytest.approx(0.9 * 3 * begin, rel=0.02)


def test_columns_of_a_table_stand_below_each_other() -> None:
    assert table(("name", "n"), [("a", "1"), ("bcdef", "1,000")]) == (
        "| name  |     n |\n|-------|------:|\n| a     |     1 |\n| bcdef | 1,000 |"
    )
