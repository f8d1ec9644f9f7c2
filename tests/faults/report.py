"""What the faults did, as a Markdown table and as lines on a terminal."""

from collections.abc import Mapping, Sequence

from simulator.history import Violation
from tests.faults.experiment import Trial

_HEADING = (
    "fault",
    "lasted s",
    "wins",
    "requests",
    "unanswered",
    "told to ask again",
    "never told as paid",
    "told as paid and lost",
    "confirmed by the broker",
    "unavailable s",
    "slowest reply s",
    "recovered in s",
    *Violation,
    "put aside",
    "verdict",
)


def markdown(trials: Sequence[Trial], about: Mapping[str, str]) -> str:
    """Return the whole report."""
    holding = sum(trial.holds for trial in trials)
    lines = [
        "# What was lost, doubled or untrue, fault by fault",
        "",
        "Providers send wins at a steady rate, hang up and send again as they do. The fault strikes, lasts",
        "and is healed. Each win is sent until it is answered; then all that was sent and said is held",
        "against the ledger, and the ledger against itself by `verify --full`.",
        "",
        *(f"- {name}: {value}" for name, value in about.items()),
        "",
        f"**{holding} of {len(trials)} hold.**",
        "",
        _row(_HEADING),
        _row(["---", *["---:"] * (len(_HEADING) - 2), "---"]),
        *(_row(_cells(trial)) for trial in trials),
        "",
        *(f"## {trial.fault}\n\n{trial.complaints}\n" for trial in trials if not trial.holds),
    ]
    return "\n".join(lines)


def line(trial: Trial) -> str:
    """Return a trial in one line."""
    service = trial.service
    told = f"{service.wins} wins in {service.requests} requests, {service.unavailable_seconds:.1f} s unavailable"
    told += f", {trial.lost} lost and sent again" if trial.lost else ""
    recovered = f"recovered in {trial.recovered_seconds:.1f} s"
    return f"{'holds' if trial.holds else 'FAILS'}  {trial.fault}: {told}, {recovered}"


def _cells(trial: Trial) -> list[str]:
    service = trial.service
    return [
        trial.fault,
        f"{trial.lasted_seconds:.1f}",
        str(service.wins),
        str(service.requests),
        str(service.unanswered),
        str(service.told_to_ask_again),
        str(service.unpaid),
        str(trial.lost),
        str(trial.confirmed),
        f"{service.unavailable_seconds:.1f}",
        f"{service.slowest_seconds:.1f}",
        f"{trial.recovered_seconds:.2f}",
        *map(str, trial.verdict.counts.values()),
        str(trial.dead),
        "holds" if trial.holds else "**fails**",
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
