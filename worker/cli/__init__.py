"""The worker's command line: `python -m worker --help`.

| module | contents |
|---|---|
| `app` | the entry point: registers all commands, and turns each exception into one line and an exit code |
| `players` | the commands `player` and `session` |
| `transfers` | the commands `transfer`, `round` and `ledger` |
| `dead_letters`, `dead_letter_audit` | the command `dead`, and how the audit log records it |
| `audit` | the command `audit`, which shows the audit log |
| `migrate`, `verify` | the commands `migrate` and `verify`, which go over the cells in turn |
| `grants`, `token` | the commands `grants` (rights in PostgreSQL) and `token` (the operator API's tokens) |
| `cells` | reads from several cells, and selects the one that a command changes |
| `context` | runs a function with the database of one cell |
| `options` | the options and arguments that several commands share, and their checks |
| `output`, `progress` | answers as text or JSON, and the progress of a long command |
| `exit_codes` | the exit codes |
"""

from worker.cli.app import main

__all__ = ["main"]
