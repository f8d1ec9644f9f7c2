"""The worker's command line: `python -m worker --help`.

| module | what is in it |
|---|---|
| `app` | the commands, and where each fault becomes one line and an exit code |
| `transfers`, `players` | the commands about transfers and rounds, players and sessions |
| `audit` | the command about the audit log |
| `dead_letters`, `dead_letter_audit` | the commands about dead letters, and their audit log |
| `exit_codes` | the exit codes |
| `context` | opening the books for one command |
| `cells` | what is asked of several cells, and in which one something is changed |
| `migrate`, `verify` | the commands that go over the cells in turn |
| `options` | what several commands take |
| `token` | making a token for a user of the operator API |
| `output`, `progress` | the answers, for people and for programs, and how far a long one is |
"""

from worker.cli.app import main

__all__ = ["main"]
