"""What stands in this repository is no secret: nobody beyond this machine is served with it."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.published import is_loopback, is_published, refuse_published_secrets
from shared.settings import Settings
from tests.support.paths import DEPLOY, ROOT

PRIVATE = "a-secret-of-my-own"


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        (
            "[integrations.klas] secrets",
            {"integrations": {"klas": {"secrets": ["mine", "klas-demo-secret"]}}},
        ),
        ("[integrations.klas] secrets", {"integrations": {"klas": {"secrets": "env:A_SECRET"}}}),
        ("[operator] tokens", {"operator": {"tokens": "operator-demo-token"}}),
        ("[broker] url", {"broker": {"url": "amqp://me:mine@a,amqp://me:credits@b"}}),
        ("[broker] url", {"broker": {"url": "amqp://broker"}}),
        ("[broker] url", {"broker": {"url": "amqp://me:gu%65st@broker"}}),
        ("[ledger] database_url", {"ledger": {"database_url": "postgresql+asyncpg://me:demo-worker@a/b"}}),
        ("[ledger] database_url", {"ledger": {"database_url": "postgresql+asyncpg://a/b?password=credits"}}),
        (
            "[ledger] database_url",
            {"ledger": {"database_url": "postgresql+asyncpg://me:mine@a/b?password=credits"}},
        ),
        ("[cells.b.broker] url", {"cells": {"b": {"broker": {"url": "amqp://me:credits@b"}}}}),
        ("[cache] url", {"cache": {"url": "redis://worker:demo-redis@cache"}}),
        ("[cache] url", {"cache": {"url": "redis+sentinel://worker:demo-redis@a,[::1]/mymaster"}}),
        ("[cache] url", {"cache": {"url": "redis+sentinel://worker:WORKER_PASSWORD@a/mymaster"}}),
        (
            "[cache] url",
            {"cache": {"url": "redis+sentinel://worker:mine@a,[::1]/mymaster?sentinel_password=PASSWORD"}},
        ),
    ],
)
@pytest.mark.usefixtures("clean_place")
def test_published_secret_is_refused_beyond_loopback_by_its_key(
    monkeypatch: pytest.MonkeyPatch, key: str, settings: dict[str, dict[str, Any]]
) -> None:
    monkeypatch.setenv("A_SECRET", "gpas-demo-secret\n")
    for table in ("gateway", "operator"):
        own = settings.get(table, {})
        refuse_published_secrets(Settings.model_validate(settings), table)
        for place in ({"host": "0.0.0.0"}, {"served_at": "casino.example:443"}):  # noqa: S104
            served = Settings.model_validate({**settings, table: {**own, **place}})
            with pytest.raises(SettingsError, match=rf"^{re.escape(key)}: is published .* \[{table}\]"):
                refuse_published_secrets(served, table)
        mapped = {"host": "0.0.0.0", "served_at": "127.0.0.1:8080"}  # noqa: S104
        refuse_published_secrets(Settings.model_validate({**settings, table: {**own, **mapped}}), table)


PGPASS = r"""
# a comment:*:*:*:demo-worker
short:*:demo-worker
other:5432:credits:me:demo-worker
a:5433:credits:me:demo-worker
a:5432:other:me:demo-worker
a:5432:credits:other:demo-worker
"""


@pytest.mark.parametrize("place", ["[ledger] database_url: the password in "])
@pytest.mark.parametrize(
    ("url", "variables", "entry"),
    [
        ("me@a/credits", {"PGPASSWORD": "demo-worker"}, ""),
        ("me@/credits?host=/run/postgresql", {"PGPASSWORD": "credits"}, ""),
        ("me@a/credits", {"PGPASSFILE": "passwords"}, "a:5432:credits:me:demo-worker"),
        ("me@a/credits", {"PGPASSFILE": "passwords"}, "*:*:*:*:demo-worker"),
        ("me@a:5433/other", {"PGPASSFILE": "passwords"}, r"a:*:other:me:credits"),
        ("me@/credits", {"PGPASSFILE": "passwords"}, "localhost:5432:credits:me:demo-worker"),
        ("me@/credits?host=b:1,a:5432", {"PGPASSFILE": "passwords"}, "a:5432:*:me:credits"),
        ("/", {"PGPASSFILE": "passwords", "PGHOST": "b", "PGUSER": "us"}, "b:5432:us:us:credits"),
        ("me@a/credits?passfile=passwords", {"PGPASSFILE": "nowhere"}, "a:*:*:*:demo-worker"),
        ("me@a/credits", {"HOME": "."}, "a:*:*:*:demo-worker"),
        ("me:@a/credits", {"PGPASSWORD": "credits"}, ""),
        ("me@DB.Internal/credits", {"PGPASSFILE": "passwords"}, "DB.Internal:*:*:*:credits"),
        ("me@b:1/c?host=a", {"PGPASSFILE": "passwords"}, "a:1:c:me:credits"),
        ("me@b/c?port=1", {"PGPASSFILE": "passwords"}, "b:1:c:me:credits"),
        ("me@b/c?user=you&database=d", {"PGPASSFILE": "passwords"}, "b:*:d:you:credits"),
    ],
)
@pytest.mark.usefixtures("clean_place")
def test_published_password_that_is_not_in_the_url_is_found_where_it_is(
    monkeypatch: pytest.MonkeyPatch, place: str, url: str, variables: dict[str, str], entry: str
) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings: dict[str, Any] = {
        "operator": {"host": "0.0.0.0"},  # noqa: S104
        "ledger": {"database_url": f"postgresql+asyncpg://{url}"},
    }
    for file in ("passwords", ".pgpass"):
        Path(file).write_text(f"{PGPASS}{entry}\n")
    with pytest.raises(SettingsError, match=rf"^{re.escape(place)}.* is published"):
        refuse_published_secrets(Settings.model_validate(settings), "operator")
    own = {**settings, "ledger": {"database_url": f"postgresql+asyncpg://me:{PRIVATE}@a/credits"}}
    refuse_published_secrets(Settings.model_validate(own), "operator")  # which comes before all others


@pytest.mark.usefixtures("clean_place")
def test_password_that_no_server_of_ours_is_sent_is_nobodys_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    Path("passwords").write_text(f"{PGPASS}*:*:*:you:{PRIVATE}\n*:*:*:you:credits\n")
    monkeypatch.setenv("PGPASSFILE", "passwords")
    of_operator = {"operator": {"host": "0.0.0.0"}}  # noqa: S104
    for url in (
        "postgresql+asyncpg://me@a/credits",
        "postgresql+asyncpg://you@a/credits",
        "sqlite+aiosqlite:///credits.db",
    ):
        settings = {**of_operator, "ledger": {"database_url": url}}
        refuse_published_secrets(Settings.model_validate(settings), "operator")
    monkeypatch.setenv("PGPASSWORD", "credits")
    refuse_published_secrets(Settings.model_validate(of_operator), "operator")  # whose ledger is SQLite's


@pytest.mark.usefixtures("clean_place")
def test_secrets_of_ones_own_are_served_to_anybody() -> None:
    settings = {
        "gateway": {"host": "0.0.0.0"},  # noqa: S104
        "operator": {"tokens": ["env:NOT_SET_HERE", PRIVATE]},
        "broker": {"url": f"amqp://credits:{PRIVATE}@broker"},
        "ledger": {"database_url": f"postgresql+asyncpg://credits:{PRIVATE}@database/credits"},
        "cache": {"url": "redis://cache"},
        "integrations": {"klas": {"secrets": [PRIVATE]}, "wrong": {"secrets": 5}},
    }
    refuse_published_secrets(Settings.model_validate(settings), "gateway")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2:80", "[::1]:80", "::1", "localhost", "LOCALHOST:80"])
def test_loopback_is_this_machine(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:80", "::", "[::]:80", ":80", "8080", "10.0.0.1:80", "localhost.example", "127.0.0.1.example"],
)
def test_anything_else_is_not(address: str) -> None:
    assert not is_loopback(address)


def test_every_secret_of_the_demonstration_is_known_as_published() -> None:
    demo = tomllib.loads((ROOT / "gateway/demo.toml").read_text())
    secrets = [secret for table in demo["integrations"].values() for secret in table["secrets"]]
    assert len(secrets) >= 4
    assert all(map(is_published, [*secrets, *demo["operator"]["tokens"]]))


def test_every_default_secret_of_compose_is_known_as_published() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    defaults = re.findall(r"\$\{[A-Z_]*(?:PASSWORD|PASS|TOKEN|KEY|SECRET)[A-Z_]*:-([^}]*)\}", compose)
    written = re.findall(r"://[^\s:@/]*:([^\s@${}]+)@", compose)
    assert len(defaults) >= 3
    assert [secret for secret in [*defaults, *written] if not is_published(secret)] == []


def test_every_password_that_a_document_shows_is_known_as_published() -> None:
    documents = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    documents += (DEPLOY / "redis").glob("*.conf")
    text = "\n".join(document.read_text() for document in documents)
    shown = re.findall(r"://[^\s:@/]*:([^\s@${}]+)@", text)
    shown += re.findall(r"(?:add_user \w+ |LOGIN PASSWORD '| on >)([^\s']+)", text)
    assert len(shown) >= 8
    assert [secret for secret in shown if not is_published(secret)] == []
