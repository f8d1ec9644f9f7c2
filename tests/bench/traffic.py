"""Traffic is signed requests made in advance, in a file that each load generator reads once, front to back.

A file is a sequence of records: the length as six digits, then a request's bytes. The providers take turns, so
that the number of a record tells whose it is.
"""

import random
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from gateway.providers.base import Callback, Provider, Win
from gateway.providers.registry import build
from shared.money import Currencies
from simulator.client import http_bytes
from simulator.dialects import DIALECTS
from tests.support.system import INTEGRATIONS, SESSION, WITH_SESSIONS

PLAYERS: Final = 10_000
BULK_ITEMS: Final = 100
LENGTH_DIGITS: Final = 6

TURNS: Final = tuple(INTEGRATIONS)
"""The integrations, in the order of their turns."""

PAID: Final = {name: DIALECTS[name].paid_mark for name in TURNS}
"""The bytes in an integration's reply to a new win that is paid, and in no other reply."""

PAID_BEFORE: Final = {name: DIALECTS[name].replay_mark or PAID[name] for name in TURNS}
"""The same for a repeat of a paid win."""

REPEAT_DISTANCE: Final = range(250, 2_000)
"""How many records before a repeat its original is: more than there are connections."""

_providers: Final[dict[str, Provider[Any, Any]]] = {
    name: build(name, table, Currencies()) for name, table in INTEGRATIONS.items()
}
WINDOW_SECONDS: Final = {name: provider.settings.reply_within_seconds for name, provider in _providers.items()}
"""How long an integration's provider is promised to wait at most: a reply after that is missed."""

_SENDS_BULKS: Final = next(name for name in TURNS if DIALECTS[name].sends_bulks)
_numbers: Final = count()


def player(number: int) -> str:
    """Return a player's id that every provider's format admits."""
    return f"player{number:05}"


def wins(players: int = PLAYERS) -> Iterator[bytes]:
    """Yield new wins without end, each for any of the players, by each integration in turn."""
    while True:
        for integration in TURNS:
            yield http_bytes(integration, _new_win(integration, players))


def mixed(repeats: float) -> Iterator[bytes]:
    """Yield wins without end, of which the share `repeats` was sent before, to the byte."""
    chance, sent = random.Random(1), list(islice(wins(), REPEAT_DISTANCE.stop))
    yield from sent
    for new in wins():
        again = chance.random() < repeats
        request = sent[-chance.choice(REPEAT_DISTANCE)] if again else new
        sent.append(request)
        if len(sent) > 2 * REPEAT_DISTANCE.stop:
            del sent[: REPEAT_DISTANCE.stop]
        yield request


def bulks() -> Iterator[bytes]:
    """Yield bulk requests without end, each of BULK_ITEMS new wins."""
    while True:
        items = [_new_win(_SENDS_BULKS, PLAYERS) for _ in range(BULK_ITEMS)]
        yield http_bytes(_SENDS_BULKS, DIALECTS[_SENDS_BULKS].bulk(items))


def one_win_of_each_session(players: int = PLAYERS) -> Iterator[bytes]:
    """Yield a win of each of the players from a provider that names sessions only."""
    for number in range(players):
        yield http_bytes(WITH_SESSIONS[0], _win_of(WITH_SESSIONS[0], player(number)))


def _new_win(integration: str, players: int) -> Callback:
    return _win_of(integration, player(random.randrange(players)))


def _win_of(integration: str, player_id: str) -> Callback:
    win = Win(str(uuid4()), player_id, f"{SESSION}{player_id}", round_id=f"round-{next(_numbers)}")
    return _providers[integration].sample_request(win)


def write(path: Path, requests: Iterable[bytes]) -> int:
    """Write requests to a file; return their number."""
    number = 0
    with path.open("wb") as file:
        for number, request in enumerate(requests, 1):  # noqa: B007  (what remains of it is the answer)
            file.write(b"%0*d%b" % (LENGTH_DIGITS, len(request), request))
    return number


def read(path: Path) -> Iterator[bytes]:
    """Yield the requests of a file."""
    with path.open("rb") as file:
        while length := file.read(LENGTH_DIGITS):
            yield file.read(int(length))
