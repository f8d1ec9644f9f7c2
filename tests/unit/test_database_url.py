"""A wrong database URL is told in one line, and its password is not told."""

import pytest

from shared.errors import SettingsError
from shared.settings import LedgerSettings
from worker.cli.ledger import place
from worker.database import create_engine


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "postgresql://user:hunter2@127.0.0.1/db",
        "mysql://user:hunter2@127.0.0.1/db",
        "postgresql+asyncpg://user:hunt@er2:hunter2@127.0.0.1/db",
        "postgresql+asyncpg://user:hunter2@127.0.0.1:hunter2/db",
        "sqlite+aiosqlite:////proc/no/such/place.db",
        "sqlite+aiosqlite:////proc/place.db",
    ],
)
def test_wrong_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[ledger\] database_url: [^\n]+$") as refused:
        create_engine(LedgerSettings(database_url=url))
    assert "hunt" not in str(refused.value)


def test_place_of_a_database_is_told_without_its_password() -> None:
    url = "postgresql+asyncpg://user:hunter2@127.0.0.1:5432/db?password=hunter2"
    assert place(LedgerSettings(database_url=url)) == "postgresql+asyncpg://user:***@127.0.0.1:5432/db"
