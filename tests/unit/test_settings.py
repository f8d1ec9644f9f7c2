"""Settings: what an operator set is in force; what is wrong is said in one clear line without secrets."""

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings import (
    MEMORY,
    BrokerSettings,
    CacheSettings,
    LedgerSettings,
    OperatorSettings,
    Settings,
    load_settings,
)
from tests.support.settings_refusal import refusal
from tests.unit.conftest import WriteFile

pytestmark = pytest.mark.usefixtures("clean_place")


def test_without_any_setting_everything_runs_in_one_process() -> None:
    settings = load_settings()
    assert (settings.broker.url, settings.cache.url) == (MEMORY, MEMORY)
    assert settings.ledger.database_url.startswith("sqlite+aiosqlite:///")


def test_file_is_in_force(write_file: WriteFile) -> None:
    write_file('[broker]\nshards = 3\n[currencies]\nBTC = 8\n[integrations.klas]\nprovider = "klas"\n')
    settings = load_settings()
    assert settings.broker.shards == 3
    assert settings.currencies == {"BTC": 8}
    assert settings.integrations == {"klas": {"provider": "klas"}}


def test_file_of_the_default_name_is_found() -> None:
    Path("credits.toml").write_text("[broker]\nshards = 3\n")
    assert load_settings().broker.shards == 3


def test_environment_overrides_one_value_of_a_file(write_file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file('[broker]\nshards = 3\nurl = "amqp://file"\n')
    monkeypatch.setenv("CREDITS_BROKER__URL", "amqp://environment")
    broker = load_settings().broker
    assert (broker.url, broker.shards) == ("amqp://environment", 3)


def test_environment_alone_sets_an_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_CONFIG", "")
    monkeypatch.setenv("CREDITS_INTEGRATIONS__KLAS__PROVIDER", "klas")
    assert load_settings().integrations == {"klas": {"provider": "klas"}}


def test_environment_overrides_the_decimals_of_a_currency(
    write_file: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file("[currencies]\nBTC = 8\nUSDT = 6\n")
    monkeypatch.setenv("CREDITS_CURRENCIES__BTC", "11")
    assert load_settings().currencies == {"BTC": 11, "USDT": 6}


def test_empty_name_of_the_file_means_that_no_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("credits.toml").write_text("[broker]\nshards = 3\n")
    monkeypatch.setenv("CREDITS_CONFIG", "")
    assert load_settings().broker.shards == BrokerSettings().shards != 3


def test_misspelt_key_is_named(write_file: WriteFile) -> None:
    write_file("[broker]\nshard = 3\n")
    assert "[broker] shard:" in refusal()


def test_misspelt_table_is_named(write_file: WriteFile) -> None:
    write_file("[brokr]\nshards = 3\n")
    assert "[brokr]:" in refusal()


def test_misspelt_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_BROKR__URL", "amqp://somewhere")
    assert "CREDITS_BROKR__URL" in refusal()


def test_misspelt_key_of_a_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_BROKER__ULR", "amqp://somewhere")
    assert "[broker] ulr:" in refusal()


def test_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_CONFIG", "nowhere.toml")
    assert "'nowhere.toml'" in refusal()


def test_file_that_is_no_toml_is_told_by_its_line(write_file: WriteFile) -> None:
    write_file("[broker\n")
    assert "line 1" in refusal()


def test_key_of_many_lines_is_one_line(write_file: WriteFile) -> None:
    write_file(f'[broker]\n"a\\nb\\u001b{"x" * 1_000}" = 1\n')
    message = refusal()
    assert "\x1b" not in message
    assert len(message) < 300


def test_many_wrong_values_are_one_bounded_line(write_file: WriteFile) -> None:
    write_file("[broker]\n" + "\n".join(f"key{number} = 1" for number in range(1_000)))
    assert refusal().count("there is no such setting") == 5


def test_settings_show_no_secret() -> None:
    settings = Settings(
        broker=BrokerSettings(url="amqp://user:hunter2@broker"),
        ledger=LedgerSettings(database_url="postgresql+asyncpg://user:hunter2@database"),
        cache=CacheSettings(url="redis://:hunter2@cache"),
        operator=OperatorSettings(tokens=("hunter2",)),
        integrations={"klas": {"secrets": ["hunter2"]}},
    )
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[broker]\nshards = 0\n", "[broker] shards"),
        ('[broker]\nshards = "many"\n', "[broker] shards"),
        ('[broker]\nurl = "http://localhost"\n', "[broker] url"),
        ("[gateway]\nport = 65536\n", "[gateway] port"),
        ("[worker]\nbatch_credits_max = 100000\n", "[worker] batch_operations_max"),
        ('[log]\nformat = "xml"\n', "[log] format"),
        ("[operator]\nport = -1\n", "[operator] port"),
        ("[operator]\ntoken = []\n", "[operator] token"),
        (
            f'[operator.users.Ben]\nrole = "admin"\ntoken_sha256 = ["{0:064}"]\n',
            "[operator.users] Ben",
        ),
        ('[operator.users.ben]\nrole = "root"\ntoken_sha256 = []\n', "[operator.users.ben] role"),
        ('[operator.users.ben]\nrole = "admin"\ntoken_sha256 = []\n', "[operator.users.ben] token_sha256"),
        (
            '[operator.users.ben]\nrole = "admin"\ntoken_sha256 = ["A"]\n',
            "[operator.users.ben] token_sha256, number 1",
        ),
        ('[currencies]\n"B/C" = 8\n', "[currencies] B/C"),
        ("[currencies]\nBTC = 19\n", "[currencies] BTC"),
        ('[integrations."Klas/1"]\nprovider = "klas"\n', "[integrations] Klas/1"),
        ("broker = 1\n", "[broker]"),
    ],
)
def test_bad_value_is_named_by_its_place(write_file: WriteFile, text: str, where: str) -> None:
    write_file(text)
    assert f"{where}: " in refusal()


@pytest.mark.parametrize(
    "text",
    [
        '[broker]\nurl = "ampq://user:hunter2@broker"\n',
        '[broker]\nshards = "hunter2"\n',
        '[cache]\nurl = ["hunter2"]\n',
        '[ledger]\ndatabase_url = { password = "hunter2" }\n',
        '[integrations]\nklas = "hunter2"\n',
        'broker = "hunter2"\n',
        '[operator]\ntokens = [["hunter2"]]\n',
        '[operator.users.ben]\nrole = "admin"\ntoken_sha256 = ["hunter2"]\n',
    ],
)
def test_refused_value_is_not_repeated_because_it_may_be_a_secret(write_file: WriteFile, text: str) -> None:
    write_file(text)
    assert "hunter2" not in refusal()


@pytest.mark.parametrize(
    ("text", "seconds", "operations"),
    [
        ("[cache]\ntimeout_ms = 20\n[worker]\nbatch_credits_max = 7\n", 0.02, 7),
        ("[cache]\ntimeout_seconds = 0.02\n[worker]\nbatch_operations_max = 7\n", 0.02, 7),
        ("", 0.05, 1_000),
    ],
)
def test_setting_is_read_by_its_former_name_too(
    write_file: WriteFile, text: str, seconds: float, operations: int
) -> None:
    write_file(text)
    settings = load_settings()
    assert (settings.cache.timeout_seconds, settings.worker.batch_operations_max) == (seconds, operations)


@pytest.mark.usefixtures("clean_place")
def test_former_name_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_CACHE__TIMEOUT_MS", "20")
    assert load_settings().cache.timeout_seconds == 0.02


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("timeout_ms = 20\ntimeout_seconds = 0.02", "timeout_ms is the former name of timeout_seconds"),
        ("timeout_ms = 'soon'", "invalid literal"),
        ("timeout_ms = 0", "greater than 0"),
    ],
)
def test_former_name_is_refused_beside_the_new_one_and_with_no_number(
    write_file: WriteFile, text: str, complaint: str
) -> None:
    write_file(f"[cache]\n{text}\n")
    with pytest.raises(SettingsError, match=complaint):
        load_settings()
