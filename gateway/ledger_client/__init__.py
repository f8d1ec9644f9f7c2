"""The call to the ledger: over RabbitMQ, or in this process."""
