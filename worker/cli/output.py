"""Prints answers: as aligned text for people, or as one JSON object a line for programs."""

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
"""The width for which tables are laid out, so wide that no line is folded: terminals fold lines, and `grep` needs
them whole.
"""


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun in the singular or plural.

    >>> counted(1, "credit"), counted(2, "credit"), counted(0, "entry", "entries")
    ('1 credit', '2 credits', '0 entries')
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def print_answer(answer: Any, text: str, *, as_json: bool) -> None:
    """Print an answer as JSON, or its text."""
    typer.echo(msgspec.json.encode(answer).decode() if as_json else text)


def player_text(player: PlayerView) -> str:
    """Return a player with wallets and latest transfers as text."""
    wallets = [(w.kind, w.balance, counted(w.entries, "entry", "entries"), w.wallet_id) for w in player.wallets]
    return "\n".join(
        (
            aligned([("player", player.player_id), ("currency", player.currency), ("since", player.created_at)]),
            "\nwallets",
            aligned(wallets, right={1, 2}),
            "\nlast transfers",
            _transfers_table(player.transfers),
        )
    )


def transfers_text(page: TransferPage) -> str:
    """Return a page of a player's transfers as text."""
    return _transfers_table(page.transfers) + _next_page_hint(page.next_cursor)


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
    return (aligned([heading, *rows]) if rows else "none") + _next_page_hint(page.next_cursor)


def _transfers_table(transfers: Sequence[TransferLine]) -> str:
    heading = ("posted", "amount", "kind", "balance after", "integration", "provider's id")
    rows = [(t.posted_at, t.amount, t.kind, t.balance, t.integration, t.provider_tx_id) for t in transfers]
    return aligned([heading, *rows], right={1, 3}) if rows else "none"


def _next_page_hint(cursor: str | None) -> str:
    return f"\nthere are more: --cursor={cursor}" if cursor is not None else ""


def session_text(session: Session) -> str:
    """Return a session as text."""
    facts = ("integration", "session_id", "player_id", "currency", "opened_at", "closed_at")
    return aligned((name.replace("_", " "), getattr(session, name)) for name in facts)


def transfer_text(transfer: TransferView) -> str:
    """Return a transfer as text. The first line says whether it was paid."""
    paid = f"paid: {transfer.amount} to player {printable(transfer.player_id)} at {printable(transfer.posted_at)}"
    nothing = f"recorded: a win of zero for player {printable(transfer.player_id)}, so nothing was to be paid"
    facts = (
        ("integration", transfer.integration),
        ("provider's id", transfer.provider_tx_id),
        ("transfer", transfer.transfer_id),
        ("kind", transfer.kind),
        ("game", transfer.game_id),
        ("round", transfer.round_id),
        ("round closed", _closed_text(transfer.round_closed, transfer.after_round_closed)),
        ("bet", transfer.bet_id),
        ("session", transfer.session_id),
        ("to REAL", f"{transfer.real}, {transfer.real_balance} after"),
        ("to BONUS", f"{transfer.bonus}, {transfer.bonus_balance} after"),
    )
    blocks = [paid if transfer.amount.minor else nothing, "", aligned(facts)]
    if transfer.entries:
        blocks += ["\nentries", _entries_text(transfer.entries)]
    if transfer.conflicts:
        blocks += ["\nsent again with other content: nothing moved", _conflicts_text(transfer.conflicts)]
    if transfer.details:
        blocks += ["\ndetails", aligned(transfer.details.items())]
    return "\n".join(blocks)


def round_text(round_: RoundView) -> str:
    """Return a page of a round's wins as text."""
    heading = ("posted", "player", "amount", "kind", "bet", "round closed", "provider's id")
    rows = [
        (
            win.posted_at,
            win.player_id,
            win.amount,
            win.kind,
            win.bet_id,
            _closed_text(win.closed_round, win.after_round_closed),
            win.provider_tx_id,
        )
        for win in round_.wins
    ]
    count = counted(len(rows), "win")
    on_page = " on this page" if round_.next_cursor is not None else ""
    title = f"round {printable(round_.round_id)} of {round_.integration}: {count}{on_page}\n"
    return "\n".join((title, aligned([heading, *rows], right={2}))) + _next_page_hint(round_.next_cursor)


def _closed_text(by_this: bool, before_this: bool) -> str:  # noqa: FBT001
    if before_this:
        return "before this win, which was paid all the same"
    return "by this win" if by_this else "no"


def _conflicts_text(conflicts: Iterable[ConflictView]) -> str:
    return aligned(
        (conflict.first_seen_at, *(f"{name}: {offered}" for name, offered in conflict.offered.items()))
        for conflict in conflicts
    )


def _entries_text(entries: Iterable[EntryView]) -> str:
    heading = ("account", "amount", "balance after", "number", "wallet")
    rows = [(e.account, e.amount, e.balance, e.wallet_version, e.wallet_id) for e in entries]
    return aligned([heading, *rows], right={1, 2, 3})


def audit_text(audit: Audit) -> str:
    """Return an audit as text: its coverage and totals, then each invariant with the cases that break it."""
    totals = ", ".join(
        (
            counted(audit.transfers, "transfer"),
            counted(audit.entries, "entry", "entries"),
            counted(audit.wallets, "wallet"),
        )
    )
    sums = [("paid", s.paid, f"in {counted(s.transfers, 'transfer')}") for s in audit.sums]
    blocks = [_coverage_text(audit.coverage), totals, *([aligned(sums, right={1, 2})] if sums else []), ""]
    blocks.append(aligned((f.broken or "holds", f.invariant, f.description) for f in audit.findings))
    for finding in audit.findings:
        if finding.broken:
            shown = "" if finding.broken == len(finding.cases) else f", the first {len(finding.cases)}"
            blocks.append(f"\n{finding.invariant}: broken in {counted(finding.broken, 'case')}{shown}")
            blocks.append(aligned([list(finding.cases[0]), *(list(c.values()) for c in finding.cases)]))
    return "\n".join(blocks)


def _coverage_text(coverage: Coverage) -> str:
    read_at = printable(coverage.read_at)
    if coverage.since is None:
        text = f"full: all that the books held at {read_at}"
    else:
        text = (
            f"incremental: what came since {printable(coverage.since)}, when all held, until {read_at}, and every"
            " wallet; --full alone proves that older rows are still what they were"
        )
    if coverage.not_kept is None:
        return text
    return f"{text}\nthe next audit will not build on this one: {printable(coverage.not_kept)}"


def aligned(rows: Iterable[Sequence[object]], right: frozenset[int] | set[int] = frozenset()) -> str:
    """Return rows as a table. The columns whose numbers are in `right` are aligned to the right."""
    cells = [[printable(cell) for cell in row] for row in rows]
    table = Table.grid(padding=(0, 2))
    for column in range(max(map(len, cells), default=0)):
        table.add_column(justify="right" if column in right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=LINE_CELLS_MAX, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(f"  {line}".rstrip() for line in captured.get().splitlines())


def printable(value: object) -> str:
    """Return a value as one printable line, so that text of a provider can't send escape sequences to a terminal."""
    if value is None:
        return "-"
    text = f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
