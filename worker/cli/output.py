"""Answers: aligned text for people, one JSON object a line for programs."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.players import Session
from worker.queries.audit_entries import AuditPage
from worker.queries.views import (
    ConflictView,
    EntryView,
    PlayerView,
    RoundView,
    TransferLine,
    TransferPage,
    TransferView,
)
from worker.verify import Audit, Coverage

LINE_CELLS_MAX = 100_000
"""Lines are never folded: a terminal folds them itself, and `grep` wants them whole."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number of things in words.

    >>> counted(1, "credit"), counted(2, "credit"), counted(0, "entry", "entries")
    ('1 credit', '2 credits', '0 entries')
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def print_answer(answer: Any, text: str, *, as_json: bool) -> None:
    """Print an answer."""
    typer.echo(msgspec.json.encode(answer).decode() if as_json else text)


def player_text(player: PlayerView) -> str:
    """Return a player as text."""
    wallets = [(w.kind, w.balance, counted(w.entries, "entry", "entries"), w.wallet_id) for w in player.wallets]
    return "\n".join(
        (
            aligned([("player", player.player_id), ("currency", player.currency), ("since", player.created_at)]),
            "\nwallets",
            aligned(wallets, right={1, 2}),
            "\nlast transfers",
            _lines(player.transfers),
        )
    )


def transfers_text(page: TransferPage) -> str:
    """Return a page of a player's transfers as text."""
    return _lines(page.transfers) + _more(page.next_cursor)


def audit_log_text(page: AuditPage) -> str:
    """Return a page of the audit log as text."""
    heading = ("at", "who", "via", "action", "subject", "outcome", "login", "detail")
    rows = [
        (
            e.at,
            e.actor,
            e.via,
            e.action,
            e.subject,
            e.outcome,
            e.login,
            msgspec.json.encode(e.detail).decode(),
        )
        for e in page.entries
    ]
    return (aligned([heading, *rows]) if rows else "none") + _more(page.next_cursor)


def _lines(transfers: Sequence[TransferLine]) -> str:
    heading = ("posted", "amount", "kind", "balance after", "integration", "provider's id")
    rows = [(t.posted_at, t.amount, t.kind, t.balance, t.integration, t.provider_tx_id) for t in transfers]
    return aligned([heading, *rows], right={1, 3}) if rows else "none"


def _more(cursor: str | None) -> str:
    return f"\nthere are more: --cursor={cursor}" if cursor is not None else ""


def session_text(session: Session) -> str:
    """Return a session as text."""
    facts = ("integration", "session_id", "player_id", "currency", "opened_at", "closed_at")
    return aligned((name.replace("_", " "), getattr(session, name)) for name in facts)


def transfer_text(transfer: TransferView) -> str:
    """Return a transfer as text, the answer to 'was it paid?' first."""
    paid = f"paid: {transfer.amount} to player {plain(transfer.player_id)} at {plain(transfer.posted_at)}"
    nothing = f"recorded: a win of zero for player {plain(transfer.player_id)}, so nothing was to be paid"
    facts = (
        ("integration", transfer.integration),
        ("provider's id", transfer.provider_tx_id),
        ("transfer", transfer.transfer_id),
        ("kind", transfer.kind),
        ("game", transfer.game_id),
        ("round", transfer.round_id),
        ("round closed", _closed(transfer.round_closed, transfer.after_round_closed)),
        ("bet", transfer.bet_id),
        ("session", transfer.session_id),
        ("to REAL", f"{transfer.real}, {transfer.real_balance} after"),
        ("to BONUS", f"{transfer.bonus}, {transfer.bonus_balance} after"),
    )
    blocks = [paid if transfer.amount.minor else nothing, "", aligned(facts)]
    if transfer.entries:
        blocks += ["\nentries", _entries(transfer.entries)]
    if transfer.conflicts:
        blocks += ["\nsent again with other content: nothing moved", _conflicts(transfer.conflicts)]
    if transfer.details:
        blocks += ["\ndetails", aligned(transfer.details.items())]
    return "\n".join(blocks)


def round_text(round_: RoundView) -> str:
    """Return a round as text."""
    heading = ("posted", "player", "amount", "kind", "bet", "round closed", "provider's id")
    rows = [
        (
            win.posted_at,
            win.player_id,
            win.amount,
            win.kind,
            win.bet_id,
            _closed(win.closed_round, win.after_round_closed),
            win.provider_tx_id,
        )
        for win in round_.wins
    ]
    count = counted(len(rows), "win")
    here = " on this page" if round_.next_cursor is not None else ""
    title = f"round {plain(round_.round_id)} of {round_.integration}: {count}{here}\n"
    return "\n".join((title, aligned([heading, *rows], right={2}))) + _more(round_.next_cursor)


def _closed(by_this: bool, before_this: bool) -> str:  # noqa: FBT001
    if before_this:
        return "before this win, which was paid all the same"
    return "by this win" if by_this else "no"


def _conflicts(conflicts: Iterable[ConflictView]) -> str:
    return aligned(
        (conflict.first_seen_at, *(f"{name}: {offered}" for name, offered in conflict.offered.items()))
        for conflict in conflicts
    )


def _entries(entries: Iterable[EntryView]) -> str:
    heading = ("account", "amount", "balance after", "number", "wallet")
    rows = [(e.account, e.amount, e.balance, e.wallet_version, e.wallet_id) for e in entries]
    return aligned([heading, *rows], right={1, 2, 3})


def audit_text(audit: Audit) -> str:
    """Return an audit as text: what was read, then each invariant with the cases that break it."""
    totals = ", ".join(
        (
            counted(audit.transfers, "transfer"),
            counted(audit.entries, "entry", "entries"),
            counted(audit.wallets, "wallet"),
        )
    )
    sums = [("paid", s.paid, f"in {counted(s.transfers, 'transfer')}") for s in audit.sums]
    blocks = [_coverage(audit.coverage), totals, *([aligned(sums, right={1, 2})] if sums else []), ""]
    blocks.append(aligned((f.broken or "holds", f.invariant, f.description) for f in audit.findings))
    for finding in audit.findings:
        if finding.broken:
            told = "" if finding.broken == len(finding.cases) else f", the first {len(finding.cases)}"
            blocks.append(f"\n{finding.invariant}: broken in {counted(finding.broken, 'case')}{told}")
            blocks.append(aligned([list(finding.cases[0]), *(list(c.values()) for c in finding.cases)]))
    return "\n".join(blocks)


def _coverage(coverage: Coverage) -> str:
    read_at = plain(coverage.read_at)
    if coverage.since is None:
        read = f"full: all that the books held at {read_at}"
    else:
        read = (
            f"incremental: what came since {plain(coverage.since)}, when all held, until {read_at}, and every"
            " wallet; --full alone proves that older rows are still what they were"
        )
    if coverage.not_kept is None:
        return read
    return f"{read}\nthe next audit will not build on this one: {plain(coverage.not_kept)}"


def aligned(rows: Iterable[Sequence[object]], right: frozenset[int] | set[int] = frozenset()) -> str:
    """Return rows as columns, those of the numbers in `right` aligned to the right."""
    cells = [[plain(cell) for cell in row] for row in rows]
    table = Table.grid(padding=(0, 2))
    for column in range(max(map(len, cells), default=0)):
        table.add_column(justify="right" if column in right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=LINE_CELLS_MAX, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(f"  {line}".rstrip() for line in captured.get().splitlines())


def plain(value: object) -> str:
    """Return a value as one line of printable text: a provider's text must not steer a terminal."""
    if value is None:
        return "-"
    text = f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
