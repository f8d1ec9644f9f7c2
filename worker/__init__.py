"""The ledger: the only writer of money."""
