"""The call to the ledger: over RabbitMQ, or in this process for the embedded mode."""

from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.concurrency import ConcurrencyLimit
from shared.message_keys import read_message_keys
from shared.settings import MEMORY, Settings


def create_ledger_client(settings: Settings) -> LedgerClient:
    """Return the client that `[broker] url` names. Raises SettingsError for missing `[broker] keys`."""
    if settings.broker.url == MEMORY:
        # The gateway of a real installation never loads the worker's code, nor SQLAlchemy.
        from gateway.ledger_client.embedded import EmbeddedLedgerClient  # noqa: PLC0415

        return EmbeddedLedgerClient(settings)
    from gateway.ledger_client.rabbit import RabbitLedgerClient  # noqa: PLC0415

    limit = ConcurrencyLimit(settings.gateway.in_flight_max)
    return RabbitLedgerClient(settings.broker, read_message_keys(settings.broker), limit)
