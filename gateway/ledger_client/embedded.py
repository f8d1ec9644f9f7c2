"""The ledger in the same process, for a laptop, a demonstration or a test. Only this module imports the worker."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.concurrency import ConcurrencyLimit
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
    """Calls a ledger service of its own, batching as over the broker."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings, whose database must have its tables."""
        super().__init__(ConcurrencyLimit(settings.gateway.in_flight_max))
        self._settings: Final = settings
        self._dispatcher: Final = BatchDispatcher(self._send, shards=1, limit=self.limit)
        self._resources: Final = AsyncExitStack()
        self._service: LedgerService | None = None

    async def __aenter__(self) -> Self:
        """Open the ledger. Raises SettingsError or LedgerUnavailable."""
        self._service = await self._resources.enter_async_context(open_ledger_service(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the ledger."""
        await self._dispatcher.close()
        await self._resources.aclose()

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        """Return the ledger's replies by `deadline` on the loop's clock."""
        return await self._dispatcher.call_all(questions, deadline)

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the reply to a call that overtakes all that wait and is not counted in the limit."""
        return await self._dispatcher.call_first(question, deadline)

    async def _send(self, _shard: int, questions: Sequence[Question], _deadline: float) -> BatchAnswer:
        """Answer a batch. Each call ends at its own deadline, but its transaction is not interrupted."""
        if self._service is None:
            raise LedgerUnavailable("the ledger is not open")
        operations, queries = split(questions)
        outcomes, replies = await self._service.answer(operations, queries)
        return BatchAnswer("", merged(questions, outcomes, replies))


async def prepare(settings: Settings, player_id: str, currency: str, session_id: str) -> None:
    """Create the tables, a player, and a session of the player in every integration, where they are missing."""
    engine = create_engine(settings.ledger)
    try:
        await migrate(engine)
        await add_player(engine, player_id, currency)
        for integration in settings.integrations:
            await open_session(engine, integration, session_id, player_id)
    finally:
        await engine.dispose()
