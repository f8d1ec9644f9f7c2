"""What stands in this repository is no secret: nobody beyond this machine is served with it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.published import is_loopback, is_published, refuse_published_secrets
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
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
        ("[cache] url", {"cache": {"url": "redis://worker:demo-redis@cache"}}),
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


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.2:80", "[::1]:80", "::1", "localhost", "LOCALHOST:80"]
)
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
