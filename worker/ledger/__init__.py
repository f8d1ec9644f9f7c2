"""The ledger: it decides what each operation moves, and posts it in one transaction."""
