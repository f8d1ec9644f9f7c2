"""A worker that says of one batch in three that it is paid, and pays nothing, for the verdict to find it out.

`python -m tests.faults.lying run`
"""

from itertools import count
from typing import Any

from worker.cli import main
from worker.ledger.statements_postgres import PostgresStatements

if __name__ == "__main__":
    numbers, pay = count(1), PostgresStatements.insert

    async def insert(*arguments: Any) -> None:
        """Pay, or not."""
        if next(numbers) % 3:
            await pay(*arguments)

    setattr(PostgresStatements, "insert", insert)  # noqa: B010
    main()
