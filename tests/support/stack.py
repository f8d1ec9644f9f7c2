"""The product under a provider's test: callbacks come in over HTTP, and the test reads the ledger."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

import httpx
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from gateway.app import create_app
from gateway.ledger_client.dispatcher import BatchAnswer
from gateway.ledger_client.embedded import EmbeddedLedgerClient
from gateway.providers.base import Callback
from shared.errors import LedgerUnavailable
from shared.money import Currencies
from shared.operations import Credit
from shared.settings import Settings
from shared.wire import Question
from worker import players
from worker.database import schema
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.players import SessionResult
from worker.verify import verify

HASTY_SECONDS: Final = 0.3
"""How soon a hasty integration wants its reply; a slow ledger takes twice as long."""

SLOW_SECONDS: Final = 2 * HASTY_SECONDS


@dataclass(frozen=True, slots=True)
class Posted:
    """A transfer in the ledger."""

    integration: str
    provider_tx_id: str
    player_id: str
    currency: str
    amount_minor: int
    real_minor: int
    bonus_minor: int
    kind: str
    round_id: str | None
    round_closed: bool
    game_id: str | None
    bet_id: str | None
    session_id: str | None
    details: dict[str, str]


class Stack(Protocol):
    """A running product, in one process or over RabbitMQ: tests expect the same of both."""

    async def send(self, integration: str, callback: Callback, method: str = "POST") -> httpx.Response:
        """Send a callback to its URL."""

    async def add_player(self, player_id: str, currency: str) -> None:
        """Open a player's wallets."""

    async def open_session(
        self, integration: str, session_id: str, player_id: str, currency: str | None = None
    ) -> None:
        """Open a session of the player, by default in the player's own currency."""

    async def close_session(self, integration: str, session_id: str) -> None:
        """Close it."""

    async def balance(self, player_id: str, currency: str = "EUR") -> int:
        """Return the player's whole balance in minor units."""

    async def transfers(self, player_id: str | None = None) -> list[Posted]:
        """Return the transfers, of one player or of all."""

    async def conflicts(self, provider_tx_id: str) -> list[dict[str, Any]]:
        """Return the other contents that came under a posted id, in the order of arrival."""

    async def conflicts_counted(self, integration: str) -> Counter[str]:
        """Return how many conflicts the metrics count, by the field that differed."""

    def logged(self) -> AbstractContextManager[Sequence[Mapping[str, Any]]]:
        """Collect the log's events."""

    async def broken_invariants(self) -> list[str]:
        """Return the ledger's broken invariants: none, if all is well."""

    def unreachable(self) -> AbstractContextManager[None]:
        """Cut the ledger off: nothing reaches it."""

    def reply_lost(self) -> AbstractContextManager[None]:
        """Lose the ledger's replies, after it has posted."""

    def slow(self) -> AbstractContextManager[None]:
        """Let the ledger reply later than any provider waits."""


@asynccontextmanager
async def embedded_stack(
    database_url: str, integrations: Mapping[str, Mapping[str, Any]], **tables: Any
) -> AsyncIterator["EmbeddedStack"]:
    """Run the product in this process, with its ledger in a new database; `tables` are more settings."""
    settings = Settings.model_validate(
        {"ledger": {"database_url": database_url}, "integrations": integrations, **tables}
    )
    engine = create_engine(settings.ledger)
    await migrate(engine)
    ledger = FaultyLedgerClient(settings)
    app = create_app(settings, ledger)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with (
        app.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as http,
    ):
        yield EmbeddedStack(http, ledger, engine, app.operations.registry)
    await engine.dispose()


class FaultyLedgerClient(EmbeddedLedgerClient):
    """The real ledger in this process, over a client that can be made to fail."""

    fault: str | None = None

    async def _send(self, shard: int, questions: Sequence[Question], deadline: float) -> BatchAnswer:
        if self.fault == "unreachable":
            raise LedgerUnavailable("cut off by the test")
        answered = await super()._send(shard, questions, deadline)
        if any(isinstance(question, Credit) for question in questions):
            if self.fault == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            if self.fault == "reply lost":
                raise LedgerUnavailable("lost by the test")
        return answered


@dataclass(frozen=True, slots=True)
class EmbeddedStack:
    """The gateway in this process, called over ASGI, and its ledger."""

    http: httpx.AsyncClient
    ledger: FaultyLedgerClient
    engine: AsyncEngine
    registry: CollectorRegistry

    async def send(self, integration: str, callback: Callback, method: str = "POST") -> httpx.Response:
        return await self.http.request(
            method,
            f"/{integration}/{callback.path}",
            params=callback.query,
            content=callback.body,
            headers=callback.headers,
        )

    async def add_player(self, player_id: str, currency: str) -> None:
        await players.add_player(self.engine, player_id, currency)

    async def open_session(
        self, integration: str, session_id: str, player_id: str, currency: str | None = None
    ) -> None:
        answer = await players.open_session(self.engine, integration, session_id, player_id, currency)
        assert answer.result is SessionResult.OPENED

    async def close_session(self, integration: str, session_id: str) -> None:
        answer = await players.close_session(self.engine, integration, session_id)
        assert answer.result is SessionResult.CLOSED

    async def balance(self, player_id: str, currency: str = "EUR") -> int:
        wallets = schema.wallets.c
        total = select(func.sum(wallets.balance_minor)).where(
            wallets.player_id == player_id, wallets.currency == currency
        )
        async with self.engine.connect() as connection:
            return int((await connection.execute(total)).scalar_one())

    async def transfers(self, player_id: str | None = None) -> list[Posted]:
        transfers = schema.transfers.c
        columns = [transfers[column.name] for column in fields(Posted)]
        posted = select(*columns).order_by(transfers.id)
        if player_id is not None:
            posted = posted.where(transfers.player_id == player_id)
        async with self.engine.connect() as connection:
            rows = (await connection.execute(posted)).mappings().all()
        return [Posted(**{**row, "details": json.loads(row["details"])}) for row in rows]

    async def conflicts(self, provider_tx_id: str) -> list[dict[str, Any]]:
        offered = (
            select(schema.conflicts.c.offered)
            .join(schema.transfers)
            .where(schema.transfers.c.provider_tx_id == provider_tx_id)
            .order_by(schema.conflicts.c.first_seen_at)
        )
        async with self.engine.connect() as connection:
            return [json.loads(text) for text in (await connection.execute(offered)).scalars()]

    async def conflicts_counted(self, integration: str) -> Counter[str]:
        return Counter(
            {
                sample.labels["field"]: int(sample.value)
                for family in self.registry.collect()
                for sample in family.samples
                if sample.name == "credits_gateway_conflicts_total" and sample.labels["integration"] == integration
            }
        )

    def logged(self) -> AbstractContextManager[Sequence[Mapping[str, Any]]]:
        return capture_logs()

    async def broken_invariants(self) -> list[str]:
        audit = await verify(self.engine, Currencies())
        return [repr(finding) for finding in audit.findings if finding.broken]

    def unreachable(self) -> AbstractContextManager[None]:
        return self._fault("unreachable")

    def reply_lost(self) -> AbstractContextManager[None]:
        return self._fault("reply lost")

    def slow(self) -> AbstractContextManager[None]:
        return self._fault("slow")

    @contextmanager
    def _fault(self, fault: str) -> Iterator[None]:
        self.ledger.fault = fault
        try:
            yield
        finally:
            self.ledger.fault = None
