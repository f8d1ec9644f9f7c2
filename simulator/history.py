"""What was sent, what was replied, and what the ledger holds in the end: do they agree?

A history is taken down outside the system, by who sends. `judge` holds it against the ledger and says in
numbers what must never be. It believes nothing that the system says of itself but the ledger's rows.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final

import msgspec

Identity = tuple[str, str]
"""Integration and provider_tx_id: what money dedups on."""


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for."""

    integration: str
    provider_tx_id: str
    player_id: str
    currency: str
    amount_minor: int

    @property
    def identity(self) -> Identity:
        """Which win it is about."""
        return self.integration, self.provider_tx_id


class Said(StrEnum):
    """What a reply tells a provider to believe."""

    PAID = "paid"
    """Paid, now or by an earlier attempt."""

    ASK_AGAIN = "ask again"
    """Nothing is known yet: the provider must send it again."""

    REFUSED = "refused"
    """Never to be paid like this. Right only of an id that was paid with other content."""

    GARBLED = "garbled"
    """Nothing that the provider's protocol knows."""


class Receipt(msgspec.Struct, frozen=True):
    """What a reply about a paid win names."""

    transfer_id: str
    balance_minor: int
    """Of all the player's wallets in the currency, right after the win."""


class Attempt(msgspec.Struct, frozen=True):
    """One request, and what came of it as its sender saw it. Times are the sender's, in Unix seconds."""

    asked: Asked
    sent_at: float
    ended_at: float
    """When the reply came, or the sender gave up."""

    said: Said | None = None
    """None: no reply, or none in time."""

    receipt: Receipt | None = None
    """Only of a reply that says PAID."""

    @property
    def seconds(self) -> float:
        """How long the sender waited."""
        return self.ended_at - self.sent_at


class Posted(msgspec.Struct, frozen=True):
    """A transfer as the ledger holds it: what was asked for, and the sum of its entries on wallets."""

    asked: Asked
    receipt: Receipt
    entries_minor: int


class Books(msgspec.Struct, frozen=True):
    """What the ledger holds in the end."""

    posted: Sequence[Posted]
    balances_minor: Mapping[str, int]
    """The sum of each player's wallets."""


class Wrong(StrEnum):
    """What must never be."""

    MISSING = "acknowledged and missing"
    TWICE = "paid twice"
    UNTRUE = "replies that contradict the ledger"
    BALANCE = "balances that contradict history"
    UNSENT = "posted and never sent"
    UNPOSTED = "confirmed by the broker and never posted"


class Verdict(msgspec.Struct, frozen=True):
    """What was found wrong: a text for each time."""

    found: Mapping[Wrong, Sequence[str]]

    @property
    def counts(self) -> dict[Wrong, int]:
        """How often each was found."""
        return {wrong: len(self.found.get(wrong, ())) for wrong in Wrong}

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not any(self.counts.values())


def judge(
    attempts: Iterable[Attempt],
    books: Books,
    *,
    confirmed: Collection[Identity] = (),
    opening_minor: Mapping[str, int] | None = None,
) -> Verdict:
    """Hold a history against the ledger.

    `confirmed` are the credits that the broker took upon itself, whether or not anybody was told of it;
    `opening_minor` is what players had before the first attempt, nothing where they are not named. All
    attempts are of one currency, for players that exist, and signed as they should be.
    """
    attempts = list(attempts)
    found: defaultdict[Wrong, list[str]] = defaultdict(list)
    posted = _by_identity(books.posted, found)
    sent = {attempt.asked for attempt in attempts}
    for attempt in attempts:
        _judge_reply(attempt, posted.get(attempt.asked.identity), found)
    for identity, transfer in posted.items():
        if transfer.asked not in sent:
            found[Wrong.UNSENT].append(f"{_name(identity)}: nobody sent this content")
    for identity in set(confirmed) - posted.keys():
        found[Wrong.UNPOSTED].append(_name(identity))
    _judge_balances(posted, books.balances_minor, opening_minor or {}, found)
    return Verdict(dict(found))


def _by_identity(transfers: Iterable[Posted], found: Mapping[Wrong, list[str]]) -> dict[Identity, Posted]:
    """Return the transfers by their ids; note those that are there twice, or moved more than they say."""
    posted: dict[Identity, Posted] = {}
    for transfer in transfers:
        identity = transfer.asked.identity
        if identity in posted:
            found[Wrong.TWICE].append(f"{_name(identity)}: two transfers")
        if transfer.entries_minor != transfer.asked.amount_minor:
            moved, due = transfer.entries_minor, transfer.asked.amount_minor
            wrong = Wrong.TWICE if moved > due else Wrong.MISSING
            found[wrong].append(f"{_name(identity)}: {moved} moved for {due}")
        posted[identity] = transfer
    return posted


def _judge_reply(attempt: Attempt, posted: Posted | None, found: Mapping[Wrong, list[str]]) -> None:
    """Note a reply that the ledger does not bear out. Of one that was never given there is nothing to say."""
    said, name = attempt.said, _name(attempt.asked.identity)
    same = posted is not None and posted.asked == attempt.asked
    if said is Said.PAID and posted is None:
        found[Wrong.MISSING].append(f"{name}: told as paid")
    elif said is Said.PAID and not same:
        found[Wrong.UNTRUE].append(f"{name}: told as paid, other content was")
    elif said is Said.PAID and posted is not None and attempt.receipt != posted.receipt:
        found[Wrong.UNTRUE].append(f"{name}: told {attempt.receipt}, the ledger has {posted.receipt}")
    elif said is Said.REFUSED and (posted is None or same):
        found[Wrong.UNTRUE].append(f"{name}: refused, and there is no conflict")
    elif said is Said.GARBLED:
        found[Wrong.UNTRUE].append(f"{name}: a reply in nobody's words")


def _judge_balances(
    posted: Mapping[Identity, Posted],
    balances_minor: Mapping[str, int],
    opening_minor: Mapping[str, int],
    found: Mapping[Wrong, list[str]],
) -> None:
    """Note players whose balance is not what they had and what they won."""
    won: Counter[str] = Counter(opening_minor)
    for transfer in posted.values():
        won[transfer.asked.player_id] += transfer.asked.amount_minor
    for player_id in sorted(won.keys() | balances_minor.keys()):
        has, due = balances_minor.get(player_id, 0), won[player_id]
        if has != due:
            found[Wrong.BALANCE].append(f"{player_id}: has {has}, history says {due}")


def _name(identity: Identity) -> str:
    return " ".join(identity)


def contradictions(attempts: Iterable[Attempt]) -> list[str]:
    """Name the wins whose replies can't all be true: what can be said without the ledger.

    A win that was told as paid must be told the same of every attempt with its content.
    """
    told: defaultdict[Asked, set[Receipt | None]] = defaultdict(set)
    garbled = set()
    for attempt in attempts:
        if attempt.said is Said.PAID:
            told[attempt.asked].add(attempt.receipt)
        elif attempt.said is Said.GARBLED:
            garbled.add(_name(attempt.asked.identity))
    paid = Counter(asked.identity for asked in told)
    several = {_name(asked.identity) for asked, receipts in told.items() if len(receipts) > 1}
    return sorted(garbled | several | {_name(identity) for identity, contents in paid.items() if contents > 1})


GAP_SECONDS_MIN: Final = 0.5
"""Without a win paid for so long, providers were not served."""


class Service(msgspec.Struct, frozen=True):
    """How providers were served."""

    wins: int
    requests: int
    sent_again: int
    """Requests that were not the first of their win: retries, repeats, doubles, altered ones."""

    unanswered: int
    """Requests without a reply in time."""

    told_to_ask_again: int
    unpaid: int
    """Wins that no reply has told as paid, however often they were sent."""

    unavailable_seconds: float
    """The sum of all times of GAP_SECONDS_MIN or more in which no win was told as paid."""

    slowest_seconds: float
    """The longest that a sender waited for a reply that came."""


def served(attempts: Iterable[Attempt], gap_seconds_min: float = GAP_SECONDS_MIN) -> Service:
    """Say how providers were served. Where wins are rare, there are longer gaps without a fault."""
    attempts = sorted(attempts, key=lambda attempt: attempt.sent_at)
    wins = {attempt.asked.identity for attempt in attempts}
    paid = [attempt for attempt in attempts if attempt.said is Said.PAID]
    ends = [max(attempt.ended_at for attempt in attempts)] if attempts else []
    moments = sorted([*(a.sent_at for a in attempts[:1]), *(a.ended_at for a in paid), *ends])
    gaps = [after - before for before, after in pairwise(moments)]
    return Service(
        wins=len(wins),
        requests=len(attempts),
        sent_again=len(attempts) - len(wins),
        unanswered=sum(attempt.said is None for attempt in attempts),
        told_to_ask_again=sum(attempt.said is Said.ASK_AGAIN for attempt in attempts),
        unpaid=len(wins - {attempt.asked.identity for attempt in paid}),
        unavailable_seconds=sum(gap for gap in gaps if gap >= gap_seconds_min),
        slowest_seconds=max((attempt.seconds for attempt in attempts if attempt.said is not None), default=0.0),
    )
