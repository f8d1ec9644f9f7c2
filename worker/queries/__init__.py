"""Read access to the ledger for people and programs: players, transfers, rounds and the audit log."""
