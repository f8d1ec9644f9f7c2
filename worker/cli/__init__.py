"""The worker's command line: `python -m worker --help`.

| module | what is in it |
|---|---|
| `app` | the commands, and where each fault becomes one line and an exit code |
| `books`, `holders` | the commands about transfers and rounds, players and sessions |
| `audit` | the command about the audit log |
| `dead`, `dead_audit` | the commands about messages that were put aside, and what is written down of them |
| `ends` | the exit codes |
| `ledger` | opening the books for one command |
| `cells` | what is asked of several cells, and in which one something is changed |
| `migrating`, `verifying` | the commands that go over the cells in turn |
| `options` | what several commands take |
| `token` | making a token for a user of the operator API |
| `output`, `progress` | the answers, for people and for programs, and how far a long one is |
"""

from worker.cli.app import main

__all__ = ["main"]
