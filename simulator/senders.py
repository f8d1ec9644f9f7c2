"""The providers at work: they sign, send, hang up, send again, repeat and reorder; each attempt is recorded."""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import msgspec

from gateway.providers.base import Provider, Win
from simulator.client import Response, connect, http_bytes, read_response
from simulator.dialects import dialect_of, read_reply
from simulator.dialects.values import Facts
from simulator.history import Attempt, Content, Identity, ReplyMeaning


class Player(msgspec.Struct, frozen=True):
    """A player who wins."""

    player_id: str
    session_id: str = ""
    """An open session of theirs; without one, providers that name sessions only have no wins for them."""


class Behaviour(msgspec.Struct, frozen=True):
    """What providers do beside sending each win until it is answered, each as a share of the wins."""

    repeats: float = 0.1
    """Sent once more after the reply."""

    doubles: float = 0.05
    """Sent twice at once."""

    altered: float = 0.02
    """Sent once more with another amount, which must move nothing."""

    held_back: float = 0.1
    """Sent up to a second late, after wins that came later."""

    hurry: float = 1.0
    """The provider's own pauses before a retry are divided by this."""

    retries: bool = True


AFTERWARDS_SECONDS_MAX: Final = 2.0
IDLE_SECONDS_MAX: Final = 3.0
"""A connection that was idle for longer is not used again: servers close theirs after five or more."""

HELD_BACK_SECONDS_MAX: Final = 1.0


@dataclass(slots=True)
class Connections:
    """The kept-alive connections to one gateway, opened as they are needed."""

    url: str
    _idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    """Each with the time of its last reply, on the monotonic clock."""

    async def exchange(self, request: bytes, within_seconds: float) -> Response | None:
        """Send a request and return the response, or None if it is not whole in time or the connection fails.

        A connection without a whole response is closed, because a provider hangs up, too.
        """
        writer: asyncio.StreamWriter | None = None
        whole = False
        try:
            async with asyncio.timeout(within_seconds):
                reader, writer = self._take_idle() or await connect(self.url)
                writer.write(request)
                response = await read_response(reader)
                whole = True
                return response
        except (OSError, EOFError, TimeoutError):
            return None
        finally:
            if writer is not None and whole:
                self._idle.append((time.monotonic(), reader, writer))
            elif writer is not None:
                writer.close()

    def _take_idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Return the connection that was used last, or None if all have been idle for too long."""
        if not self._idle or time.monotonic() > self._idle[-1][0] + IDLE_SECONDS_MAX:
            self.close()
            return None
        return self._idle.pop()[1:]

    def close(self) -> None:
        """Close the idle connections."""
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()


@dataclass(slots=True)
class Senders:
    """All providers that send to one gateway, with the history of their attempts."""

    url: str
    providers: Mapping[str, Provider[Any, Any]]
    players: Sequence[Player]
    behaviour: Behaviour = field(default_factory=Behaviour)
    currency: str = "EUR"
    seed: int = 1
    attempts: list[Attempt] = field(default_factory=list)
    """The history, in the order in which the attempts ended."""

    wins: dict[Identity, Win] = field(default_factory=dict)
    """Each win that was sent."""

    begun: int = 0
    """Wins that were sent, or should have been by now."""

    ended: int = 0
    """Wins of which no further request will be sent."""

    _stopped: bool = field(default=False, init=False)
    _chance: random.Random = field(init=False)
    _connections: Connections = field(init=False)

    def __post_init__(self) -> None:
        """Seed the random choices, so that they can be repeated."""
        self._chance = random.Random(self.seed)
        self._connections = Connections(self.url)

    def stop(self) -> None:
        """Have `send` begin no further wins."""
        self._stopped = True

    async def send(self, per_second: float, seconds: float) -> None:
        """Send wins at a steady rate for a time, or until `stop`; return when no further request is due.

        Wins leave when they are due, whether or not earlier ones were answered.
        """
        wins, start = self._wins(), time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(round(per_second * seconds)):
                    due = start + number / per_second
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    if self._stopped:
                        break
                    group.create_task(self._deliver(*next(wins)))
        finally:
            self._connections.close()

    async def send_again(self, identities: Iterable[Identity]) -> None:
        """Send wins once more that `send` has sent, each until a reply is final."""
        again = [(integration, self.wins[integration, id_]) for integration, id_ in identities]
        await asyncio.gather(*(self._until_final(integration, win) for integration, win in again))

    async def send_one(self, integration: str, win: Win) -> ReplyMeaning | None:
        """Send one win until a reply is final, beside those that `send` sends."""
        return await self._until_final(integration, win)

    def close(self) -> None:
        """Close the connections, as `send` does when it ends."""
        self._connections.close()

    def _wins(self) -> Iterator[tuple[str, Win]]:
        """Yield wins without end, each with its integration; the integrations take turns."""
        chance = self._chance
        with_session = [player for player in self.players if player.session_id]
        needs_session = {name: dialect_of(p).names_sessions_only for name, p in self.providers.items()}
        names = [name for name in self.providers if with_session or not needs_session[name]]
        while True:
            for name in names:
                player = chance.choice(with_session if needs_session[name] else self.players)
                win = Win(
                    provider_tx_id=str(UUID(int=chance.getrandbits(128), version=4)),
                    player_id=player.player_id,
                    session_id=player.session_id,
                    amount=self._amount(chance.randrange(1, 10_000)),
                    currency=self.currency,
                    round_id=f"round-{chance.getrandbits(64):016x}",
                )
                yield name, win

    def _amount(self, minor: int) -> str:
        return next(iter(self.providers.values())).currencies.to_text(minor, self.currency)

    async def _deliver(self, integration: str, win: Win) -> None:
        """Send one win until a reply is final, and its doubles, repeats and altered copies."""
        chance, behaviour = self._chance, self.behaviour
        doubles, altered = chance.random() < behaviour.doubles, chance.random() < behaviour.altered
        repeats, held_back = chance.random() < behaviour.repeats, chance.random() < behaviour.held_back
        self.begun += 1
        self.wins[integration, win.provider_tx_id] = win
        try:
            if held_back:
                await asyncio.sleep(chance.random() * HELD_BACK_SECONDS_MAX)
            copies = [self._until_final(integration, win) for _ in range(1 + doubles)]
            paid = ReplyMeaning.PAID in await asyncio.gather(*copies)
            if paid and (repeats or altered):
                await asyncio.sleep(chance.random() * AFTERWARDS_SECONDS_MAX / behaviour.hurry)
            if paid and repeats:
                await self._attempt(integration, win)
            if paid and altered:
                minor = self._content_of(integration, win).amount_minor
                await self._attempt(integration, win._replace(amount=self._amount(minor + 1)))
        finally:
            self.ended += 1

    async def _until_final(self, integration: str, win: Win) -> ReplyMeaning | None:
        """Send a win again and again until a reply is final, or the provider gives up."""
        retries = dialect_of(self.providers[integration]).retries
        meaning = await self._attempt(integration, win)
        if not self.behaviour.retries:
            return meaning
        for number in range(2, retries.attempts_max + 1):
            if meaning in {ReplyMeaning.PAID, ReplyMeaning.REFUSED}:
                break
            await asyncio.sleep(retries.pause_before(number) / self.behaviour.hurry)
            meaning = await self._attempt(integration, win)
        return meaning

    async def _attempt(self, integration: str, win: Win) -> ReplyMeaning | None:
        """Send one request, and record what came of it."""
        provider = self.providers[integration]
        dialect = dialect_of(provider)
        request = http_bytes(integration, dialect.credit(Facts.of(win)))
        sent_at = time.time()
        response = await self._connections.exchange(request, dialect.retries.window_seconds)
        meaning, receipt = (None, None) if response is None else read_reply(provider, self.currency, response)
        content = self._content_of(integration, win)
        self.attempts.append(Attempt(content, sent_at, time.time(), meaning, receipt))
        return meaning

    def _content_of(self, integration: str, win: Win) -> Content:
        minor = self.providers[integration].currencies.to_minor(win.amount, self.currency)
        return Content(integration, win.provider_tx_id, win.player_id, self.currency, minor)
