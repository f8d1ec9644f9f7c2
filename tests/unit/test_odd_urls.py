"""Odd URLs of all three servers: one line that names file and key, exit code 3, and never the secret.

Any of them, let through, would end a process with a trace, or look like an outage that never ends.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from gateway.__main__ import main as gateway
from shared.settings import Settings
from worker.cli import main as worker
from worker.database.url import read_postgres, read_url

pytestmark = pytest.mark.usefixtures("clean_place")

SECRET: Final = "hunter2"
LONG: Final = "a" * 64

AMQP: Final = "amqp://me:hunter2@"
REDIS: Final = "redis://me:hunter2@"
POSTGRES: Final = "postgresql+asyncpg://me:hunter2@"

HOSTS: Final = {
    "a..b": "two dots",
    ".a": "two dots",
    "..": "two dots",
    LONG: "63 between dots",
    f"b.{LONG}.c": "63 between dots",
    "a." * 127 + "ab": "253 characters",
    f"ü{LONG}": "no name",
    "a b": "character that no name has",
    "a%2Eb": "character that no name has",
    "a\\b": "character that no name has",
    "a*b": "character that no name has",
    "[::1": "",
    "[::g]": "",
    "a\tb": "can't be seen",
    "a\u00ad..b": "can't be seen",
    "a\u200bb": "can't be seen",
}
"""Of every server, and a part of the line; how a bracket is missed is each reader's own."""

PLACES: Final = {":0": "from 1 to 65535", ":99999": "65535", ":-1": "65535", ":5x": "number"}
ACCOUNTS: Final = {
    "me:hunter2%00": "%00",
    "me:%00hunter2": "%00",
    "me%00:hunter2": "%00",
    "me:hunter2%ff": "not UTF-8",
    "me:hunter2\n": "can't be seen",
}

BROKERS: Final = {
    **{AMQP + host: defect for host, defect in HOSTS.items()},
    **{f"{AMQP}a{place}": defect for place, defect in PLACES.items()},
    **{f"amqp://{account}@a": defect for account, defect in ACCOUNTS.items()},
    "amqp://me:hunter2%40@\uff11.example": "can't read it",
    AMQP: "there is no host",
    f"{AMQP}:5672/": "there is no host",
    "amqp:///": "there is no host",
    "amqp://me:x#hunter2@a": "%23 for #",
    "amqp://me:x?hunter2@a": "%3F for ?",
    "amqp://me:x/hunter2@a": "%2F for /",
    f"{AMQP}a/v%00": "%00",
    f"{AMQP}a/{'v' * 256}": "255 bytes",
    f"{AMQP}a,{AMQP}b..c": "URL 2 of 2: two dots",
}
CACHES: Final = {
    **{REDIS + host: defect for host, defect in HOSTS.items()},
    **{f"{REDIS}a{place}": defect for place, defect in PLACES.items()},
    **{f"redis://{account}@a": defect for account, defect in ACCOUNTS.items()},
    REDIS: "there is no host",
    f"{REDIS}:6379/0": "there is no host",
    "redis:///0": "there is no host",
    "redis://:x#hunter2@a/0": "%23 for #",
    "redis://:x?hunter2@a/0": "%3F for ?",
    "redis://:x/hunter2@a/0": "%2F for /",
    "redis://a?password=hunter2%00": "%00",
    "unix:///run/redis%00.sock?password=hunter2": "%00",
}
DATABASES: Final = {
    **{f"{POSTGRES}{host}/db": defect for host, defect in HOSTS.items()},
    **{f"{POSTGRES}a{place}/db": defect for place, defect in PLACES.items() if place != ":-1"},
    **{f"postgresql+asyncpg://{account}@a/db": defect for account, defect in ACCOUNTS.items()},
    f"{POSTGRES}:5432/db": "there is no host",
    "postgresql+asyncpg://me:hunt@er2@a/db": "an @ stands where none may",
    f"{POSTGRES}a/d%00b": "%00",
    f"{POSTGRES}/db?host=a..b": "two dots",
    f"{POSTGRES}/db?host=a:5432,:5433": "there is no host",
    f"{POSTGRES}/db?host=a:0": "from 1 to 65535",
    f"{POSTGRES}/db?host=a&port=99999": "from 1 to 65535",
    f"{POSTGRES}/db?host=a:5432&host={LONG}:5432": "63 between dots",
    "postgresql+asyncpg://a/db?password=hunter2%00": "%00",
}

KEYS: Final = {"[broker] url": BROKERS, "[cache] url": CACHES, "[ledger] database_url": DATABASES}
VARIABLES: Final = {
    "[broker] url": "CREDITS_BROKER__URL",
    "[cache] url": "CREDITS_CACHE__URL",
    "[ledger] database_url": "CREDITS_LEDGER__DATABASE_URL",
}
CASES: Final = [(key, url, defect) for key, table in KEYS.items() for url, defect in table.items()]

INTEGRATION: Final = """
[integrations.klas]
provider = "klas"
secrets = ["hunter2"]
"""

START: Final[dict[str, Callable[[], None]]] = {"": gateway, "migrate": worker}


@pytest.mark.parametrize(("key", "url", "defect"), CASES, ids=lambda text: text[:60])
def test_odd_url_ends_the_start_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str, url: str, defect: str
) -> None:
    for place in ("gateway.__main__", "shared.logging"):  # logs are this test run's
        monkeypatch.setattr(f"{place}.set_up_logging", lambda _settings: None)
    table, name = re.findall(r"\w+", key)
    text = url.translate({ord(c): f"\\u{ord(c):04x}" for c in '\\"\n\t'})
    for source in ("credits.toml", VARIABLES[key]):
        if source == "credits.toml":
            Path(source).write_text(f'{INTEGRATION}[{table}]\n{name} = "{text}"\n')
        else:
            Path("credits.toml").write_text(INTEGRATION)
            monkeypatch.setenv(source, url)
        for command, run in START.items():
            monkeypatch.setattr(sys, "argv", ["program", *command.split()])
            with pytest.raises(SystemExit) as ended:
                run()
            out, err = capsys.readouterr()
            assert (ended.value.code, out) == (3, ""), err
            assert re.fullmatch(rf"(credits|error): {re.escape(f'{source}: {key}')}: [^\n]+\n", err), err
            assert defect in err
            assert SECRET not in err


@pytest.mark.parametrize(
    "host", ["a", "a.", "redis-1.my_net.internal", "10.0.0.1", "[::1]", "[fe80::1%25eth0]", "bücher.example"]
)
def test_every_host_that_a_resolver_can_be_asked_for_is_taken(host: str) -> None:
    urls = {"broker": {"url": f"{AMQP}{host}:5672/v"}, "cache": {"url": f"{REDIS}{host}:6379/0"}}
    assert Settings.model_validate(urls).broker.urls == (urls["broker"]["url"],)
    assert read_postgres(read_url(f"{POSTGRES}{host}:5432/db"))


@pytest.mark.parametrize(
    "place",
    [
        "/db",
        "/db?host=/run/postgresql",
        "/db?host=/run/postgresql&port=5433",
        "/db?host=a:5432,b:5433",
        "/db?host=a:5432&host=[::1]:5433",
        "a/db?host=b:5432",
        ":5433/db?host=/run/postgresql",
    ],
)
def test_every_place_that_libpq_knows_is_taken(place: str) -> None:
    assert read_postgres(read_url(POSTGRES + place))
