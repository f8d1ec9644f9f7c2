"""The ledger in this process: for a laptop, a demonstration, a test. The only place that knows the worker."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.dispatcher import BatchAnswer, BatchDispatcher
from gateway.ledger_client.questions import merged, split
from shared.errors import LedgerUnavailable
from shared.settings import Settings
from shared.wire import Answer, Question
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.ledger.service import LedgerService, open_ledger_service
from worker.players import add_player, open_session


class EmbeddedLedgerClient(LedgerClient):
    """Calls a bookkeeper of its own, batching as over the broker."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings, whose database's tables must be there."""
        self._settings: Final = settings
        self._lanes: Final = BatchDispatcher(self._send, shards=1, in_flight_max=settings.gateway.in_flight_max)
        self._opened: Final = AsyncExitStack()
        self._bookkeeper: LedgerService | None = None

    async def __aenter__(self) -> Self:
        """Open the ledger. Raises SettingsError or LedgerUnavailable."""
        self._bookkeeper = await self._opened.enter_async_context(open_ledger_service(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the ledger."""
        await self._lanes.close()
        await self._opened.aclose()

    def is_overloaded(self, more: int = 0) -> bool:
        """Tell whether who asks now would only make all wait longer."""
        return self._lanes.is_overloaded(more)

    @property
    def in_flight(self) -> int:
        """How many questions wait for their answer."""
        return self._lanes.in_flight

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        """Return the ledger's answers by `deadline` on the loop's clock."""
        return await self._lanes.call_all(questions, deadline)

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the answer to a question that goes before all that wait, and is not counted among them."""
        return await self._lanes.call_first(question, deadline)

    async def _send(self, _shard: int, questions: Sequence[Question], _deadline: float) -> BatchAnswer:
        """Answer. Each call keeps its own deadline; a transaction is not cut off by it."""
        if self._bookkeeper is None:
            raise LedgerUnavailable("the ledger is not open")
        operations, queries = split(questions)
        outcomes, replies = await self._bookkeeper.answer(operations, queries)
        return BatchAnswer("", merged(questions, outcomes, replies))


async def prepare(settings: Settings, player_id: str, currency: str, session_id: str) -> None:
    """Make the tables, a player, and the player's session in every integration, unless they are there."""
    engine = create_engine(settings.ledger)
    try:
        await migrate(engine)
        await add_player(engine, player_id, currency)
        for integration in settings.integrations:
            await open_session(engine, integration, session_id, player_id)
    finally:
        await engine.dispose()
