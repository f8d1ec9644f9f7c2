"""A history of requests and replies, and its comparison with the ledger.

The senders record it, outside the system. `check_history` compares it with the ledger's rows, and trusts nothing
else that the system tells of itself.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final

import msgspec

Identity = tuple[str, str]
"""Integration and provider_tx_id, on which money dedups."""


class Content(msgspec.Struct, frozen=True):
    """The content of a request."""

    integration: str
    provider_tx_id: str
    player_id: str
    currency: str
    amount_minor: int

    @property
    def identity(self) -> Identity:
        """The identity of the win."""
        return self.integration, self.provider_tx_id


class ReplyMeaning(StrEnum):
    """What a provider takes a reply to mean."""

    PAID = "paid"
    """Paid, now or by an earlier attempt."""

    ASK_AGAIN = "ask again"
    """The outcome is not known yet: the provider must send the win again."""

    REFUSED = "refused"
    """The win will never be paid like this. Right only for an id that was paid with other content."""

    GARBLED = "garbled"
    """The reply has no meaning in the provider's protocol."""


class Receipt(msgspec.Struct, frozen=True):
    """The transfer that a reply about a paid win names."""

    transfer_id: str
    balance_minor: int
    """The sum of the player's wallets in the currency, right after the win."""


class Attempt(msgspec.Struct, frozen=True):
    """One request and its reply, as the sender saw them. Times are the sender's, in Unix seconds."""

    content: Content
    sent_at: float
    ended_at: float
    """When the reply came, or the sender gave up."""

    meaning: ReplyMeaning | None = None
    """None: no reply, or none in time."""

    receipt: Receipt | None = None
    """Only of a reply that means PAID."""

    @property
    def seconds(self) -> float:
        """How long the sender waited."""
        return self.ended_at - self.sent_at


class Posted(msgspec.Struct, frozen=True):
    """A transfer as the ledger holds it, with the sum of its entries on wallets."""

    content: Content
    receipt: Receipt
    entries_minor: int


class Books(msgspec.Struct, frozen=True):
    """The ledger's transfers and balances in the end."""

    posted: Sequence[Posted]
    balances_minor: Mapping[str, int]
    """The sum of each player's wallets."""


class Violation(StrEnum):
    """A kind of contradiction that must never occur."""

    MISSING = "acknowledged and missing"
    TWICE = "paid twice"
    UNTRUE = "replies that contradict the ledger"
    BALANCE = "balances that contradict history"
    UNSENT = "posted and never sent"
    UNPOSTED = "confirmed by the broker and never posted"


class Verdict(msgspec.Struct, frozen=True):
    """The violations that were found, a text for each."""

    found: Mapping[Violation, Sequence[str]]

    @property
    def counts(self) -> dict[Violation, int]:
        """How often each kind was found."""
        return {wrong: len(self.found.get(wrong, ())) for wrong in Violation}

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not any(self.counts.values())


def check_history(
    attempts: Iterable[Attempt],
    books: Books,
    *,
    confirmed: Collection[Identity] = (),
    opening_minor: Mapping[str, int] | None = None,
) -> Verdict:
    """Compare a history with the ledger.

    `confirmed` are the credits that the broker has confirmed, whether or not a reply followed; `opening_minor`
    are the balances before the first attempt, 0 for players that are not named. All attempts are of one currency,
    for players that exist, and rightly signed.
    """
    attempts = list(attempts)
    found: defaultdict[Violation, list[str]] = defaultdict(list)
    posted = _by_identity(books.posted, found)
    sent = {attempt.content for attempt in attempts}
    for attempt in attempts:
        _check_reply(attempt, posted.get(attempt.content.identity), found)
    for identity, transfer in posted.items():
        if transfer.content not in sent:
            found[Violation.UNSENT].append(f"{_name(identity)}: nobody sent this content")
    for identity in set(confirmed) - posted.keys():
        found[Violation.UNPOSTED].append(_name(identity))
    _check_balances(posted, books.balances_minor, opening_minor or {}, found)
    return Verdict(dict(found))


def _by_identity(transfers: Iterable[Posted], found: Mapping[Violation, list[str]]) -> dict[Identity, Posted]:
    """Return the transfers by their ids; report ids with two, and transfers whose entries sum to another amount."""
    posted: dict[Identity, Posted] = {}
    for transfer in transfers:
        identity = transfer.content.identity
        if identity in posted:
            found[Violation.TWICE].append(f"{_name(identity)}: two transfers")
        if transfer.entries_minor != transfer.content.amount_minor:
            moved, due = transfer.entries_minor, transfer.content.amount_minor
            wrong = Violation.TWICE if moved > due else Violation.MISSING
            found[wrong].append(f"{_name(identity)}: {moved} moved for {due}")
        posted[identity] = transfer
    return posted


def _check_reply(attempt: Attempt, posted: Posted | None, found: Mapping[Violation, list[str]]) -> None:
    """Report a reply that contradicts the ledger; an attempt without one contradicts nothing."""
    meaning, name = attempt.meaning, _name(attempt.content.identity)
    same = posted is not None and posted.content == attempt.content
    if meaning is ReplyMeaning.PAID and posted is None:
        found[Violation.MISSING].append(f"{name}: told as paid")
    elif meaning is ReplyMeaning.PAID and not same:
        found[Violation.UNTRUE].append(f"{name}: told as paid, other content was")
    elif meaning is ReplyMeaning.PAID and posted is not None and attempt.receipt != posted.receipt:
        found[Violation.UNTRUE].append(f"{name}: told {attempt.receipt}, the ledger has {posted.receipt}")
    elif meaning is ReplyMeaning.REFUSED and (posted is None or same):
        found[Violation.UNTRUE].append(f"{name}: refused, and there is no conflict")
    elif meaning is ReplyMeaning.GARBLED:
        found[Violation.UNTRUE].append(f"{name}: a reply in nobody's words")


def _check_balances(
    posted: Mapping[Identity, Posted],
    balances_minor: Mapping[str, int],
    opening_minor: Mapping[str, int],
    found: Mapping[Violation, list[str]],
) -> None:
    """Report players whose balance is not what they had and won."""
    won: Counter[str] = Counter(opening_minor)
    for transfer in posted.values():
        won[transfer.content.player_id] += transfer.content.amount_minor
    for player_id in sorted(won.keys() | balances_minor.keys()):
        has, due = balances_minor.get(player_id, 0), won[player_id]
        if has != due:
            found[Violation.BALANCE].append(f"{player_id}: has {has}, history says {due}")


def _name(identity: Identity) -> str:
    return " ".join(identity)


def contradictions(attempts: Iterable[Attempt]) -> list[str]:
    """Return the wins whose replies contradict one another, which is found without the ledger.

    All replies that tell a provider that a win is paid must name one transfer and one balance.
    """
    receipts: defaultdict[Content, set[Receipt | None]] = defaultdict(set)
    garbled = set()
    for attempt in attempts:
        if attempt.meaning is ReplyMeaning.PAID:
            receipts[attempt.content].add(attempt.receipt)
        elif attempt.meaning is ReplyMeaning.GARBLED:
            garbled.add(_name(attempt.content.identity))
    paid = Counter(content.identity for content in receipts)
    several = {_name(content.identity) for content, named in receipts.items() if len(named) > 1}
    return sorted(garbled | several | {_name(identity) for identity, contents in paid.items() if contents > 1})


GAP_SECONDS_MIN: Final = 0.5
"""The length of a gap between two paid wins from which providers count as not served."""


class Service(msgspec.Struct, frozen=True):
    """How well the system served the providers."""

    wins: int
    requests: int
    sent_again: int
    """Requests that were not the first of their win: retries, repeats, doubles, altered ones."""

    unanswered: int
    """Requests without a reply in time."""

    told_to_ask_again: int
    unpaid: int
    """Wins without any reply that says 'paid', however often they were sent."""

    unavailable_seconds: float
    """The sum of all gaps of GAP_SECONDS_MIN or more without a reply that says 'paid'."""

    slowest_seconds: float
    """The longest that a sender waited for a reply that came."""


def served(attempts: Iterable[Attempt], gap_seconds_min: float = GAP_SECONDS_MIN) -> Service:
    """Return how well providers were served. Where wins are rare, there are longer gaps without a fault."""
    attempts = sorted(attempts, key=lambda attempt: attempt.sent_at)
    wins = {attempt.content.identity for attempt in attempts}
    paid = [attempt for attempt in attempts if attempt.meaning is ReplyMeaning.PAID]
    ends = [max(attempt.ended_at for attempt in attempts)] if attempts else []
    moments = sorted([*(a.sent_at for a in attempts[:1]), *(a.ended_at for a in paid), *ends])
    gaps = [after - before for before, after in pairwise(moments)]
    return Service(
        wins=len(wins),
        requests=len(attempts),
        sent_again=len(attempts) - len(wins),
        unanswered=sum(attempt.meaning is None for attempt in attempts),
        told_to_ask_again=sum(attempt.meaning is ReplyMeaning.ASK_AGAIN for attempt in attempts),
        unpaid=len(wins - {attempt.content.identity for attempt in paid}),
        unavailable_seconds=sum(gap for gap in gaps if gap >= gap_seconds_min),
        slowest_seconds=max((attempt.seconds for attempt in attempts if attempt.meaning is not None), default=0.0),
    )
