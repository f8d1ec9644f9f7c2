"""The worker's command line: `python -m worker --help`.

| module | what is in it |
|---|---|
| `app` | the commands, and where each fault becomes one line and an exit code |
| `books`, `holders` | the commands about transfers and rounds, players and sessions |
| `dead` | the commands about messages that were put aside |
| `ends` | the exit codes |
| `ledger` | opening the books for one command |
| `options` | what several commands take |
| `output`, `progress` | the answers, for people and for programs, and how far a long one is |
"""

from worker.cli.app import main

__all__ = ["main"]
