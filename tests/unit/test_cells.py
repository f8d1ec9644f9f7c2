"""Cells in the settings: what a cell has of its own, what it takes from the default one, what is refused."""

import re

import pytest

from shared.cells import MAIN, Part, cell_of, cells_of, naming_cell, settings_of
from shared.errors import SettingsError
from shared.message_keys import MessageKeys, Purpose, read_message_keys
from shared.settings import MEMORY, load_settings
from shared.settings_sources import with_origin
from tests.support.settings_refusal import refusal
from tests.unit.conftest import WriteFile

pytestmark = pytest.mark.usefixtures("clean_place")

KEY = "a key of the tests, of 32 bytes at least"

TWO = f"""
[broker]
url = "amqp://a:hunter2@broker/main"
keys = ["{KEY}"]
shards = 5
[ledger]
database_url = "postgresql+asyncpg://a:hunter2@database/main"
pooler = "transaction"
[cache]
url = "redis://cache/0"
ttl_seconds = 7
[cells.brand2.broker]
url = "amqp://b:hunter2@broker/brand2"
[cells.brand2.ledger]
database_url = "postgresql+asyncpg://b:hunter2@database/brand2"
pool_connections_max = 9
[integrations.klas]
provider = "klas"
[integrations.hp]
provider = "hpgames"
cell = "brand2"
"""


def test_cell_has_its_own_places_and_takes_the_rest_from_the_default_one(write_file: WriteFile) -> None:
    write_file(TWO)
    cell = settings_of(load_settings(), "brand2", *Part)
    assert (cell.broker.url, cell.broker.shards, cell.broker.keys) == (
        "amqp://b:hunter2@broker/brand2",
        5,
        (KEY,),
    )
    assert cell.ledger.database_url.endswith("/brand2")
    assert (cell.ledger.pooler, cell.ledger.pool_connections_max) == ("transaction", 9)
    assert (cell.cache.url, cell.cache.ttl_seconds) == (MEMORY, 7)
    assert list(cell.integrations) == ["hp"]
    assert (cells_of(cell), cell_of(cell, "hp")) == (("brand2",), "brand2")


def test_default_cell_is_as_it_was_and_has_no_integration_of_another(write_file: WriteFile) -> None:
    write_file(TWO)
    settings = load_settings()
    main = settings_of(settings, MAIN)
    assert (main.broker, main.ledger, main.cache) == (settings.broker, settings.ledger, settings.cache)
    assert list(main.integrations) == ["klas"]
    assert cells_of(settings) == (MAIN, "brand2")


def test_without_cells_the_settings_of_the_only_one_are_all() -> None:
    settings = load_settings()
    assert settings_of(settings, None) is settings
    assert settings_of(settings, MAIN) is settings


def test_variables_alone_make_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_CELLS__BRAND2__BROKER__URL", "amqp://broker/brand2")
    monkeypatch.setenv("CREDITS_CELLS__BRAND2__LEDGER__DATABASE_URL", "sqlite+aiosqlite:///2.db")
    monkeypatch.setenv("CREDITS_CELL", "brand2")  # which is a command's, and no setting
    settings = load_settings()
    assert cells_of(settings) == ("brand2",), "there is no default cell where nothing of it is set"
    assert settings_of(settings, None, *Part).ledger.database_url == "sqlite+aiosqlite:///2.db"


def test_place_that_is_needed_and_not_set_is_named_and_never_the_default_ones(write_file: WriteFile) -> None:
    write_file('[cells.brand2.broker]\nurl = "amqp://broker/brand2"\n')
    settings = load_settings()
    assert settings_of(settings, "brand2", Part.BROKER).ledger.database_url == ""
    with pytest.raises(SettingsError, match=re.escape("[cells.brand2.ledger] database_url: is not set")):
        settings_of(settings, "brand2", Part.LEDGER)


def test_default_cell_has_no_default_places_beside_others(write_file: WriteFile) -> None:
    """Else an integration that forgets its cell would be served by a file on the gateway's own disk."""
    text = '[cells.brand2.broker]\nurl = "amqp://broker/brand2"\n[integrations.klas]\nprovider = "klas"\n'
    write_file(text)
    with pytest.raises(SettingsError, match=re.escape("[broker] url: is not set")):
        settings_of(load_settings(), MAIN, Part.BROKER)


@pytest.mark.parametrize(
    ("cell", "words"),
    [(None, "name one with --cell, of main, brand2"), ("brand3", "no cell 'brand3'; there are main, brand2")],
)
def test_cell_that_is_not_named_or_not_there_is_one_line(write_file: WriteFile, cell: str | None, words: str) -> None:
    write_file(TWO)
    with pytest.raises(SettingsError, match=re.escape(words)):
        settings_of(load_settings(), cell)


SAME = {
    "the default cell's vhost": (
        '[cells.b.broker]\nurl = "amqps://x@BROKER:5672/main"\n',
        "[cells.b.broker] url: is the virtual host of [broker]",
    ),
    "another cell's vhost on one node of several": (
        '[cells.b.broker]\nurl = "amqp://other/brand2,amqp://broker/brand2"\n',
        "[cells.b.broker] url: is the virtual host of [cells.brand2.broker]",
    ),
    "the default cell's database": (
        '[cells.b.ledger]\ndatabase_url = "postgresql+asyncpg://x@database:5432/main?sslmode=require"\n',
        "[cells.b.ledger] database_url: is the database of [ledger]",
    ),
    "another cell's database on one host of several": (
        '[cells.b.ledger]\ndatabase_url = "postgresql+asyncpg://x@/brand2?host=a:5433&host=database"\n',
        "[cells.b.ledger] database_url: is the database of [cells.brand2.ledger]",
    ),
}


@pytest.mark.parametrize(("table", "words"), SAME.values(), ids=SAME)
def test_two_cells_with_one_place_stop_the_start(write_file: WriteFile, table: str, words: str) -> None:
    path = write_file(TWO + table)
    message = refusal()
    assert words in message
    assert with_origin(message).startswith(f"{path}: [cells.b."), "the file that says so is named"
    assert "hunter2" not in message


def test_two_cells_with_one_file_stop_the_start(write_file: WriteFile) -> None:
    file = 'database_url = "sqlite+aiosqlite:///one.db"'
    write_file(f"[ledger]\n{file}\n[cells.b.ledger]\n{file}\n")
    assert "[cells.b.ledger] database_url: is the database of [ledger]" in refusal()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[integrations.klas]\ncell = "b"\n', "[integrations.klas] cell: there is no such cell"),
        ("[integrations.klas]\ncell = 7\n", "[integrations.klas] cell: there is no such cell"),
        ("[cells.main.broker]\nshards = 3\n", "[cells] main: is the name of the cell that [broker]"),
        ("[cells.Brand.broker]\nshards = 3\n", "Brand"),
        ("[cells.b.brokr]\nshards = 3\n", "brokr: there is no such setting"),
        ("[cells.b.broker]\nshards = 0\n", "shards"),
    ],
)
def test_wrong_cell_is_one_line(write_file: WriteFile, text: str, words: str) -> None:
    write_file(text)
    assert words in refusal()


@pytest.mark.parametrize(("cell", "place"), [("b", "[cells.b.ledger]"), (MAIN, "[ledger]")])
def test_fault_of_a_cells_table_names_the_cell(cell: str, place: str) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(place)} database_url: wrong"), naming_cell(cell):
        raise SettingsError("[ledger] database_url: wrong")


def test_message_of_one_cell_does_not_verify_in_another_with_the_same_keys(write_file: WriteFile) -> None:
    write_file(TWO)
    settings = load_settings()
    main, brand2 = (read_message_keys(settings_of(settings, name).broker) for name in (MAIN, "brand2"))
    for purpose in Purpose:
        signed = {keys: keys.sign(purpose, b"a win") for keys in (main, brand2)}
        assert signed[main] == MessageKeys([KEY.encode()]).sign(purpose, b"a win"), "as without cells"
        assert main.verify(signed[brand2], *Purpose) is brand2.verify(signed[main], *Purpose) is None
        assert bytes(brand2.verify(signed[brand2], purpose) or b"") == b"a win"


def test_settings_of_a_cell_show_no_secret(write_file: WriteFile) -> None:
    write_file(TWO)
    settings = load_settings()
    assert "hunter2" not in repr(settings) + repr(settings_of(settings, "brand2"))
