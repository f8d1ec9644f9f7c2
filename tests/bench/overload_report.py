"""What was measured of overload, as tables for people and JSON for programs."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from tests.bench.outcomes import Phase
from tests.bench.overload import PEAK_CONNECTIONS, PEAK_SECONDS, Overloads, phases_at
from tests.bench.overload_findings import EDGE_SECONDS, NORMAL_MS, Overload, Second
from tests.bench.report import table
from tests.bench.surge import CONNECTIONS_MAX

PERCENT: Final = 100.0
"""A peak whose parts are percent."""

_CONNECTIONS: Final = " and ".join(map(str, PEAK_CONNECTIONS))
NOTES: Final = f"""\
Everything runs on the machine named below: servers, one gateway, one worker, default settings, and the
client, which shares the processors with them. 10,000 players, the providers in turn, new wins.

- *The peak* is what is paid a second in a closed loop before, the better of
  {_CONNECTIONS} connections, {PEAK_SECONDS:.0f} s each.
- *Phases* follow each other as in the table below. Wins come by chance, whatever is answered, and the latency
  of each counts from the instant at which it was due. What comes at once when the storm begins, and is not
  told as paid, is sent again a second later, again all at once, until it is. Nothing else is sent again.
- *Missed*: the provider hung up, because its window had ended, which here is `reply_within_seconds`. *Never
  sent*: it had waited until then for one of {CONNECTIONS_MAX:,} connections, as in a proxy. *Lost*: its
  connection was refused or reset.
- *Goodput* of the surge is how many wins a second were told as paid in their window, by when they were due,
  without the surge's first {EDGE_SECONDS[0]} s and last {EDGE_SECONDS[1]} s; of the storm, how many were told
  as paid a second, the steady ones too, until the last of those was that came at once.
- *Normal* is a second whose wins were all told as paid, 99 % of them within {NORMAL_MS:.0f} ms or
  twice the p99 of the first calm, whichever is more. What is told is after how many seconds it stayed so.
- Everything is held against the books: afterwards nothing is under way, they are verified, and hold at least
  as many of the wins as were told as paid; more, where a win was paid after its provider hung up."""


def json(overloads: Overloads) -> bytes:
    """Return everything that was measured."""
    return msgspec.json.format(msgspec.json.encode(overloads), indent=2)


def markdown(overloads: Overloads) -> str:
    """Return the report."""
    return "\n\n".join(
        [
            "# What becomes of wins when too many come",
            NOTES,
            table(("", ""), overloads.machine.items()),
            "## Phases",
            phases_table(phases_at(PERCENT)),
            "## In short",
            summary_table(overloads.measured),
            *(
                f"## Second by second: {overload.situation}\n\n{seconds_table(overload.seconds)}"
                for overload in overloads.measured
            ),
        ]
    )


def phases_table(phases: Sequence[Phase]) -> str:
    """Return a line for each phase of a system whose peak is PERCENT."""
    return table(
        ("", "seconds", "of the peak", "at once, of the peak's second"),
        ((p.name, f"{p.seconds:g}", f"{p.per_second:.0f} %", f"{p.at_once} %" if p.at_once else "") for p in phases),
    )


def summary_table(overloads: Sequence[Overload]) -> str:
    """Return a column for each situation."""
    columns = [dict(summary(overload)) for overload in overloads]
    heads = ("", *(overload.situation for overload in overloads))
    names = dict.fromkeys(name for column in columns for name in column)
    return table(heads, ((name, *(column.get(name, "") for column in columns)) for name in names))


def summary(overload: Overload) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of a situation, each with its name."""
    surge, storm = overload.surge, overload.storm
    yield "peak, credits/s", f"{overload.peak_per_second:,.0f}"
    yield "surge: offered/s", f"{overload.offered_per_second:,.0f}"
    yield "surge: goodput/s", _rate(overload, surge.goodput_per_second)
    yield "surge: told to ask again", f"{surge.ask_again_share:.1%}"
    yield "surge: missed", f"{surge.missed_share:.1%}"
    yield "surge: of these never sent", f"{surge.never_sent_share:.1%}"
    yield "surge: lost", f"{surge.lost_share:.1%}"
    yield "surge: paid, p50 ms", f"{surge.paid_p50_ms:,.0f}"
    yield "surge: paid, p99 ms", f"{surge.paid_p99_ms:,.0f}"
    yield "surge: ask again, p50 ms", f"{surge.ask_again_p50_ms:,.0f}"
    yield "surge: ask again, p99 ms", f"{surge.ask_again_p99_ms:,.0f}"
    yield "surge: ask again, max ms", f"{surge.ask_again_max_ms:,.0f}"
    yield "surge: seconds to normal after it", _seconds(surge.seconds_to_normal)
    for process, share in overload.cpu_share.items():
        yield f"surge: processors of {process}", f"{share:.2f}"
    yield "storm: wins at once", f"{storm.at_once:,}"
    yield "storm: sent in all", f"{storm.attempts:,}"
    yield "storm: seconds until all were paid", f"{storm.seconds_until_paid:.1f}"
    yield "storm: goodput/s until then", _rate(overload, storm.goodput_per_second)
    yield "storm: seconds to normal", _seconds(storm.seconds_to_normal)
    for process, use in overload.memory.items():
        told = f"{use.before_mib:.0f}, {use.highest_mib:.0f}, {use.after_mib:.0f}"
        yield f"{process}: MiB before, highest, after", told
    yield "wins in all", f"{overload.wins:,}"
    yield "told as paid", f"{overload.told_paid:,}"
    yield "in the books", f"{overload.transfers:,}"
    yield "connections lost", f"{overload.lost:,}"
    yield "client late by at most, ms", f"{overload.client_late_ms_max:,.0f}"


def _rate(overload: Overload, per_second: float) -> str:
    return f"{per_second:,.0f} ({overload.of_peak(per_second):.0%} of the peak)"


def _seconds(seconds: int | None) -> str:
    return "not in its time" if seconds is None else str(seconds)


def seconds_table(seconds: Sequence[Second]) -> str:
    """Return a line for each second."""
    return table(
        (
            "",
            "phase",
            "paid",
            "ask again",
            "missed",
            "lost",
            "paid p50 ms",
            "paid p99 ms",
            "ask again p99 ms",
        ),
        (
            (
                str(number),
                second.phase,
                str(second.paid),
                str(second.ask_again),
                str(second.missed),
                str(second.lost),
                f"{second.paid_p50_ms:.1f}",
                f"{second.paid_p99_ms:.1f}",
                f"{second.ask_again_p99_ms:.1f}",
            )
            for number, second in enumerate(seconds)
        ),
    )
