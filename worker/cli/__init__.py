"""The worker's command line: `python -m worker --help`.

| module | what is in it |
|---|---|
| `app` | the commands, and where each fault becomes one line and an exit code |
| `ends` | the exit codes |
| `ledger` | opening the books for one command |
| `output` | the answers, for people and for programs |
"""

from worker.cli.app import main

__all__ = ["main"]
