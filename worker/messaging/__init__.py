"""A worker's side of the broker: it receives batches, has the ledger post them, and replies."""
